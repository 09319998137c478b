"""`sandbox()`: one test's own view of its databases, undone at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from .._redaction import described
from .._session.database_core import DatabaseCore
from .._session.factory import SessionFactory
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .failure import SandboxError, report
from .home import Home, home_of_ours
from .membership import (
    Membership,
    close_membership,
    inside,
    open_membership,
    shared_by_all,
)
from .real_database import RealDatabase, Taken, take_all
from .real_pools import Schemas
from .routes import Route
from .sandboxed_database import SandboxedDatabase

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Sandbox", "Sandboxes", "sandbox"]

P = ParamSpec("P")
T = TypeVar("T")


def sandbox(
    *databases: DatabaseBase,
    timeout: float = 10.0,
    replicas: Collection[Engine] = (),
    real: bool = False,
    schema: Schemas = None,
) -> Sandboxes:
    """Undo all that a test does with *databases*, though it is committed.

    By `with` or `async with`, which give the `Sandbox`. Inside, each database has one
    connection with a transaction around everything, and each unit of work is a
    savepoint in it: COMMIT keeps its work until the end of the sandbox. Units take
    turns: another one waits for *timeout* seconds at most. Engines among *replicas*
    have the connection of the database whose sessions use them.

    It holds for the caller's context, and so for what the test calls and starts; others
    need `Sandbox.headers`, `Sandbox.allow()` or `Sandbox.shared()`, or get a
    `SandboxError`. Any number of sandboxes may be open at the same time.

    With *real*, each database is instead a new one of the test's own, and nothing is a
    savepoint. *schema* is what it contains: a `MetaData` or several; a function of a
    `Connection`, also with a key, `(function, "key")`; Alembic's `Config`; or a mapping
    of databases to these. That of the first sandbox of a database holds for all.

    Raises `SandboxError` at the end if something was done that a sandbox can't show:
    the transaction around everything was ended, or an independent unit inside another
    one was committed and the outer one rolled back.

    .. versionadded:: 0.2
    """
    return Sandboxes(
        databases, timeout=timeout, replicas=replicas, real=real, schema=schema
    )


class Sandbox:
    """What a test has while it is inside `sandbox()`.

    .. versionadded:: 0.2
    """

    def __init__(
        self,
        databases: Sequence[DatabaseBase],
        home: Home | None,
        timeout: float,
        replicas: Collection[Engine],
        taken: Mapping[DatabaseCore, Taken] | None = None,
    ) -> None:
        self._databases = tuple(databases)
        self._failures: list[SandboxError] = []
        self._sandboxed: dict[DatabaseCore, SandboxedDatabase | RealDatabase] = {}
        for core in map(core_of, databases):
            own_home = home if core.is_async else None
            self._sandboxed[core] = (
                SandboxedDatabase(core, own_home, timeout, self._fail, replicas)
                if taken is None
                else RealDatabase(core, taken[core], own_home, replicas, self.bind)
            )
        self._own: dict[tuple[DatabaseCore, bool], Any] = {}
        self._routes: dict[Engine, Route] = {}
        for each in self._sandboxed.values():
            self._routes |= each.routes
        self._membership = Membership(self, self._sandboxed, self._routes)

    def _fail(self, error: SandboxError) -> SandboxError:
        """Record what must fail the test, though it may be caught there."""
        self._failures.append(error)
        return error

    # What a test uses

    @property
    def session(self) -> Any:
        """The test's own session of the first database: see `session_of()`."""
        return self.session_of(self._databases[0])

    @property
    def sync_session(self) -> Session:
        """The same as a `Session`, also of an `AsyncDatabase`: for a plain `def` test.

        Not for use on the thread of an event loop.
        """
        return self._session_of(self._databases[0], is_async=False)  # type: ignore[no-any-return]  # a Session

    def session_of(self, database: DatabaseBase) -> Any:
        """The test's own session of *database*: a `Session`, or an `AsyncSession`.

        It is in no unit: commit what units are to see. It waits while a unit has the
        connection. `SandboxError` reaches a unit that begins while this session has
        changes that are not committed.
        """
        return self._session_of(database, is_async=core_of(database).is_async)

    def _session_of(self, database: DatabaseBase, *, is_async: bool) -> Any:
        core = core_of(database)
        sandboxed = self._sandboxed.get(core)
        if sandboxed is None:
            raise UsageError(
                f"{database!r} is not in this sandbox; give it to sandbox()"
            )
        if self._membership.target is None:
            raise SandboxError("this sandbox is closed: its test is over")
        if (core, is_async) not in self._own:
            self._own[core, is_async] = sandboxed.own_session(is_async=is_async)
        return self._own[core, is_async]

    @property
    def headers(self) -> dict[str, str]:
        """The header with which a request of another process belongs to this sandbox.

        A cookie of the same name and value does the same. Signed: no other value is
        accepted, and none once the sandbox is closed.
        """
        return self._membership.headers

    def allow(self) -> AbstractContextManager[None]:
        """Let what runs inside the block belong to this sandbox, in any thread or task.

        Tasks, and threads of asyncio and anyio, inherit it; others don't.
        """
        return inside(self._membership)

    def bind(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return *function* so that each call belongs to this sandbox."""

        def bound(*args: P.args, **options: P.kwargs) -> T:
            with inside(self._membership):
                return function(*args, **options)

        return bound

    def shared(self) -> AbstractContextManager[None]:
        """Let everything that belongs to no sandbox belong to this one, in the block.

        For one test at a time. Raises `SandboxError` if another one is shared.
        """
        return shared_by_all(self._membership)

    def check(self) -> None:
        """Raise the first `SandboxError` that was noticed so far, if there is one.

        The end of the sandbox does the same.
        """
        failures, self._failures = self._failures, []
        if not failures:
            return
        for other in failures[1:]:
            failures[0].add_note(f"and: {other}")
        raise failures[0]

    def keep(self) -> list[str]:
        """Leave its real databases to look at, and return their URLs, no passwords.

        Until the next run of tests in the same folder. Only a *real* sandbox has any.
        """
        return [url for each in self._sandboxed.values() for url in each.keep()]

    # For `Sandboxes`

    @property
    def membership(self) -> Membership:
        return self._membership

    def factory_of(self, database: DatabaseCore) -> SessionFactory | None:
        sandboxed = self._sandboxed.get(database)
        return None if sandboxed is None else sandboxed.factory

    def route_of(self, engine: Engine) -> Route | None:
        return self._routes.get(engine)

    def close(self) -> None:
        """Roll everything back. Does I/O, in a greenlet of SQLAlchemy's or a thread."""
        close_membership(self._membership)
        self._own.clear()
        for sandboxed in self._sandboxed.values():
            sandboxed.close()


class Sandboxes:
    """Opens one sandbox, by `with` or `async with`: see `testing.sandbox()`."""

    def __init__(
        self,
        databases: Sequence[DatabaseBase],
        *,
        timeout: float,
        replicas: Collection[Engine],
        real: bool = False,
        schema: Schemas = None,
    ) -> None:
        if not databases:
            raise UsageError("sandbox() has no database; give at least one")
        for each in databases:
            if not isinstance(each, DatabaseBase):
                raise UsageError(
                    f"{described(each)} is no database; give a Database or "
                    "AsyncDatabase"
                )
        self._databases = databases
        self._timeout = timeout
        self._replicas = replicas
        self._real = real
        self._schema = schema
        self._entered: list[tuple[Sandbox, AbstractContextManager[None]]] = []

    def _take(self) -> dict[DatabaseCore, Taken] | None:
        return take_all(self._databases, self._schema) if self._real else None

    def _enter(
        self, home: Home | None, taken: dict[DatabaseCore, Taken] | None
    ) -> Sandbox:
        box = Sandbox(self._databases, home, self._timeout, self._replicas, taken)
        open_membership(box.membership)
        around = inside(box.membership)
        around.__enter__()
        self._entered.append((box, around))
        return box

    def __enter__(self) -> Sandbox:
        is_async = any(core_of(each).is_async for each in self._databases)
        home = home_of_ours(self._timeout) if is_async else None
        return self._enter(home, self._take())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        box, around = self._entered.pop()
        try:
            box.close()
        finally:
            _leave(around)
        report(box.check, error)

    async def __aenter__(self) -> Sandbox:
        loop = asyncio.get_running_loop()
        taken = await asyncio.to_thread(self._take) if self._real else None
        return self._enter(Home(loop, self._timeout, is_ours=False), taken)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        box, around = self._entered.pop()
        try:
            await greenlet_spawn(box.close)
        finally:
            _leave(around)
        report(box.check, error)


def _leave(around: AbstractContextManager[None]) -> None:
    with suppress(ValueError):  # another context than it was entered in: a fixture's
        around.__exit__(None, None, None)
