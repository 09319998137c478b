"""A task or thread beside a request, stopped in the middle of what it does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from support.asgi import Reply, call
from support.flavours import Flavour
from support.holding import running
from support.models import Item, add_item
from support.pool import eventually
from unitwork import DBSessionMiddleware, Outcome, current_unit
from unitwork._unit.context import innermost

NAME = "stray"


def _add(session: Session) -> None:
    session.add(Item(name="one"))


class Stray:
    """An endpoint that stores one item, and starts *work* in another task or thread.

    The endpoint goes on once *work* has stopped: between the cursor and the execution
    of a statement that stores an item named "stray"; if it *connects*, before BEGIN;
    else at the engine's event that is named by *stops_at*.
    """

    def __init__(
        self,
        flavour: Flavour,
        work: Callable[[Session], Any],
        *,
        connects: bool = False,
        stops_at: str = "",
        has_hooks: bool = True,
    ) -> None:
        self._flavour = flavour
        self._work = work
        self._connects = connects
        self._has_hooks = has_hooks
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        self._go_on: Any = asyncio.Event() if flavour.is_async else threading.Event()
        self._unit: Any = None
        self._task: asyncio.Task[Any] | None = None
        engine = flavour.sync_engine
        self.hooks: list[str] = []
        """Those of the unit that were called."""
        if connects or stops_at:
            event.listen(engine, stops_at or "begin", self._at_event)
        else:
            event.listen(engine, "before_cursor_execute", self._before_execution)
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        self.app.post("/{status}")(self._endpoint)

    async def request(self, status: int) -> Reply:
        async with asyncio.timeout(20):
            return await call(self.app, "POST", f"/{status}")

    def go_on_at(self, end: str) -> None:
        """Let it go on just before the first *end*, "commit" or "rollback", is sent."""
        event.listen(self._flavour.sync_engine, end, lambda connection: self.go_on())

    def go_on(self) -> None:
        self._go_on.set()

    async def is_waited_for(self) -> None:
        """Wait until the end of the unit has begun."""
        await eventually(lambda: self._unit is not None and self._unit.is_ending)

    async def request_that_waits(self, status: int) -> Reply:
        """Make the request; let the stray go on once the end of the unit waits."""
        async with running(self.request(status)) as request:
            await self.is_waited_for()
            self.go_on()
            return await request

    @property
    def outcome(self) -> Outcome | None:
        outcome: Outcome | None = self._unit.outcome
        return outcome

    async def error(self) -> BaseException | None:
        assert self._task is not None
        await asyncio.wait((self._task,), timeout=10)
        return self._task.exception()

    async def _endpoint(self, status: int) -> None:
        session = self._flavour.db.current
        first = _add if self._connects else add_item
        await self._flavour.do(session, first)
        unit = current_unit()
        if self._has_hooks:
            unit.on_commit(self.hooks.append, "on_commit")
            unit.on_rollback(self.hooks.append, "on_rollback")
        self._unit = innermost()
        self._task = asyncio.create_task(self._flavour.do(session, self._work))
        await self._stopped.wait()
        if status >= 400:
            raise HTTPException(status)

    def _before_execution(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        if NAME in str(parameters):
            self._stop()

    def _at_event(self, connection: Any, *_: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        if self._flavour.is_async:
            await_only(self._go_on.wait())
        else:
            self._go_on.wait(10)
