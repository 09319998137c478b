"""Endpoints for many requests at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Self

from fastapi import Depends, FastAPI
from sqlalchemy.orm import Session

from support.flavours import Flavour
from support.holding import holding, running
from support.models import names
from support.pool import eventually
from unitwork import DBSessionMiddleware
from unitwork.fastapi import exception_handlers
from unitwork.testing import check_idle


async def to_event(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 10)


class Crowded:
    """The same database, whose only connection is in use."""

    def __init__(self, flavour: Flavour) -> None:
        options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 10}
        self.flavour = flavour.another(**options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._hold = self._stack.enter_context(holding(self.flavour))
        work = self.flavour.work(self._hold.execute)
        self._holder = await self._stack.enter_async_context(running(work))
        await self._hold.reached()
        return self

    async def release(self) -> None:
        self._hold.release()
        await self._holder

    async def waiting(self, count: int) -> None:
        """Wait until *count* units wait for the connection."""
        await eventually(lambda: self.flavour.db.pool_status().waiting == count)

    async def __aexit__(self, *exc_info: object) -> None:
        await self.release()
        await self._stack.aclose()
        check_idle(self.flavour.db)
        assert self.flavour.db.pool_status()[1:] == (0, 1, 0)
        await self.flavour.dispose()

    def serve(self, way: Callable[[Flavour], Any]) -> FastAPI:
        app = FastAPI(exception_handlers=exception_handlers)
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db)
        injected = Depends(way(self.flavour))

        @app.get("/{number}")
        def endpoint(number: int, session: Session = injected) -> int:
            names(session)
            return number

        return app
