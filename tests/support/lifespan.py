"""The lifespan protocol, as a server speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import to_thread
from fastapi import FastAPI

from support.asgi import ASGIApp, Message
from support.flavours import Flavour
from support.models import add_item, names
from unitwork import DBSessionMiddleware


def serve(flavour: Flavour, **options: Any) -> FastAPI:
    app = FastAPI(**options)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/")(flavour.endpoint(names))
    app.post("/{name}")(flavour.endpoint(lambda session: add_item(session).id))
    return app


class Life:
    """One lifespan of an application, as a server sees it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._to_server: asyncio.Queue[Message] = asyncio.Queue()

    async def start(self) -> Message:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.create_task(
            self._app(scope, self._to_app.get, self._to_server.put)
        )
        self._to_app.put_nowait({"type": "lifespan.startup"})
        return await self._answer()

    async def stop(self) -> Message:
        self._to_app.put_nowait({"type": "lifespan.shutdown"})
        return await self._answer()

    async def _answer(self) -> Message:
        async with asyncio.timeout(10):
            return await self._to_server.get()

    async def ended(self) -> None:
        await self._task


async def live(app: ASGIApp) -> None:
    life = Life(app)
    assert await life.start() == {"type": "lifespan.startup.complete"}
    assert await life.stop() == {"type": "lifespan.shutdown.complete"}
    await life.ended()


@asynccontextmanager
async def block(flavour: Flavour) -> AsyncIterator[Any]:
    """A `transaction()` block of either colour, for a body with awaits."""
    made = flavour.db.transaction()
    if flavour.is_async:
        async with made as session:
            yield session
        return
    session = await to_thread.run_sync(made.__enter__)
    yield session
    await to_thread.run_sync(made.__exit__, None, None, None)
