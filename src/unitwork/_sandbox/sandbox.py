"""`Sandbox`: one test's own view of its databases."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from typing import Any, Generic, ParamSpec

from sqlalchemy import Engine
from sqlalchemy.orm import Session
from typing_extensions import TypeVar

from .._real_databases.pools import Schemas
from .._real_databases.real_databases import LentDatabase
from .._real_databases.routes import Route
from .._session.database_core import DatabaseCore
from .._session.factory import SessionFactory
from .._unit.database_base import DatabaseBase, core_of
from ..errors import UsageError
from .failure import CLOSED, SandboxError
from .membership import Membership, close_membership, inside, shared_by_all
from .portal import Portal
from .real_database import RealDatabase
from .sandboxed_database import SandboxedDatabase

__all__ = ["Sandbox", "SandboxOptions"]

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", default=Any)
OtherS = TypeVar("OtherS")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """The options of `testing.sandbox()`."""

    timeout: float = 10.0
    replicas: Collection[Engine] = ()
    real: bool = False
    schema: Schemas = None


class Sandbox(Generic[S]):
    """What a test has while it is inside `sandbox()`.

    *S* is the class of the sessions of its first database.

    .. versionadded:: 0.2
    """

    def __init__(
        self,
        databases: Sequence[DatabaseBase],
        portal: Portal | None,
        options: SandboxOptions,
        lent: Mapping[DatabaseCore, LentDatabase],
    ) -> None:
        self._databases = tuple(databases)
        self._failures: list[SandboxError] = []
        self._sandboxed: dict[DatabaseCore, SandboxedDatabase | RealDatabase] = {}
        for core in map(core_of, databases):
            its_portal = portal if core.is_async else None
            self._sandboxed[core] = (
                RealDatabase(core, lent[core], its_portal, options.replicas, self.bind)
                if core in lent
                else SandboxedDatabase(
                    core, its_portal, options.timeout, self.fail, options.replicas
                )
            )
        self._sessions: dict[tuple[DatabaseCore, bool], Any] = {}
        self._routes: dict[Engine, Route] = {}
        for each in self._sandboxed.values():
            self._routes |= each.routes
        self._membership = Membership(self, self._sandboxed, self._routes)

    # What a test uses

    @property
    def session(self) -> S:
        """The test's own session of the first database: see `session_of()`."""
        session: S = self.session_of(self._databases[0])
        return session

    @property
    def sync_session(self) -> Session:
        """The same as a `Session`, also of an `AsyncDatabase`: for a plain `def` test.

        Not for use on the thread of an event loop.
        """
        session: Session = self._session_of(self._databases[0], is_async=False)
        return session

    def session_of(self, database: DatabaseBase[OtherS]) -> OtherS:
        """The test's own session of *database*: a `Session`, or an `AsyncSession`.

        It is in no unit: commit what units are to see. It waits while a unit has the
        connection. `SandboxError` reaches a unit that begins while this session has
        changes that are not committed.
        """
        is_async = core_of(database).is_async
        session: OtherS = self._session_of(database, is_async=is_async)
        return session

    def _session_of(self, database: DatabaseBase, *, is_async: bool) -> Any:
        core = core_of(database)
        sandboxed = self._sandboxed.get(core)
        if sandboxed is None:
            raise UsageError(
                f"{database!r} is not in this sandbox; give it to sandbox()"
            )
        if self._membership.target is None:
            raise SandboxError(CLOSED)
        if (core, is_async) not in self._sessions:
            self._sessions[core, is_async] = sandboxed.own_session(is_async=is_async)
        return self._sessions[core, is_async]

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
        """Return *function* so that each call belongs to this sandbox.

        A coroutine function stays one.
        """
        if inspect.iscoroutinefunction(function):
            coroutine_function: Callable[P, T] = self._bind_async(function)
            return coroutine_function

        @wraps(function)
        def bound(*args: P.args, **options: P.kwargs) -> T:
            with inside(self._membership):
                return function(*args, **options)

        return bound

    def _bind_async(self, function: Any) -> Any:
        @wraps(function)
        async def bound(*args: Any, **options: Any) -> Any:
            with inside(self._membership):
                return await function(*args, **options)

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

    # For the test kit itself

    @property
    def membership(self) -> Membership:
        return self._membership

    def fail(self, error: SandboxError) -> SandboxError:
        """Record what must fail the test, though it may be caught there."""
        self._failures.append(error)
        return error

    def factory_of(self, database: DatabaseCore) -> SessionFactory | None:
        sandboxed = self._sandboxed.get(database)
        return None if sandboxed is None else sandboxed.factory

    def route_of(self, engine: Engine) -> Route | None:
        return self._routes.get(engine)

    def close(self) -> None:
        """Roll everything back. Does I/O, in a greenlet of SQLAlchemy's or a thread."""
        close_membership(self._membership)
        self._sessions.clear()
        for sandboxed in self._sandboxed.values():
            sandboxed.close()
