"""Who runs the operations, and the registry of them.

One body serves sync and async sessions: a sync program runs in a thread, where nothing
ever suspends, by `drive()`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from soak.model import Books, Unit
from soak.program import Op

Run = Callable[["Actor", Op], Awaitable[Any]]
OPERATIONS: dict[str, Run] = {}


def operation(run: Run) -> Run:
    OPERATIONS[run.__name__.rstrip("_")] = run
    return run


async def settled(value: Any) -> Any:
    """What *value*, of a sync or an async call, comes to."""
    return await value if inspect.isawaitable(value) else value


def drive(work: Coroutine[Any, Any, Any]) -> Any:
    """Run *work*, which never suspends, in this thread."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a sync program has awaited something")


class Either:
    """`async with` for context managers of both colours."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        # A sync block has `__aenter__`, too: it says what to write.
        self._is_async = type(manager).__name__.startswith("Async")

    async def __aenter__(self) -> Any:
        if self._is_async:
            return await self._manager.__aenter__()
        return self._manager.__enter__()

    async def __aexit__(self, *error: Any) -> Any:
        if self._is_async:
            return await self._manager.__aexit__(*error)
        return self._manager.__exit__(*error)


OWN = {"x-own": "1"}
"""Marks an answer that the application has meant to give."""
HANDLED = {"x-own": "1", "x-handled": "1"}
"""And one that a handler has made of an exception."""


class Answered(Exception):
    """A handler makes an answer of it: `409`, or `stream200`."""

    def __init__(self, name: str) -> None:
        self.streams = name.startswith("stream")
        self.status = int(name.removeprefix("stream"))


class Actor:
    """Runs operations in one unit, with its session."""

    def __init__(
        self, stage: Any, books: Books, unit: Unit, session: Any = None
    ) -> None:
        self.stage = stage
        self.books = books
        self.unit = unit
        self._session = session
        self.collected: list[str] = []
        """The keys of what this actor has written."""
        self._last: Any = None
        """The last row added by the ORM, with its key."""

    @property
    def session(self) -> Any:
        return self._session or self.stage.db.current

    @property
    def sync_session(self) -> Any:
        return getattr(self.session, "sync_session", self.session)

    async def run(self, ops: tuple[Op, ...]) -> None:
        for op in ops:
            try:
                await OPERATIONS[op.name](self, op)
            except Exception as error:
                self.books.failed(error)
                raise

    async def write(self, do: Callable[[str], Any]) -> None:
        scope, key = self.unit.writes()
        await settled(do(key))
        self.unit.wrote(scope, key)
        self.collected.append(key)

    async def driver(self) -> Any:
        connection = await settled(self.session.connection())
        if hasattr(connection, "get_raw_connection"):
            return (await connection.get_raw_connection()).driver_connection
        return connection.connection.driver_connection
