"""One real database in one sandbox: taken from a pool, and given back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from .._driver.sqlalchemy_internals import root_engine
from .._real_databases.pools import Schemas, real_databases_for
from .._real_databases.real_databases import LentDatabase
from .._real_databases.routes import Route
from .._session.database_core import DatabaseCore
from .._session.factory import SessionFactory
from .._unit.database_base import DatabaseBase, core_of
from .failure import SandboxError
from .portal import Portal

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["RealDatabase", "take_all"]

_WITH_IO = (
    *("begin", "begin_nested", "close", "commit", "connection", "delete", "execute"),
    *("flush", "get", "get_one", "merge", "refresh", "rollback", "scalar", "scalars"),
)
"""The methods of a session that may do I/O."""


def take_all(
    databases: Iterable[DatabaseBase], schemas: Schemas
) -> dict[DatabaseCore, LentDatabase]:
    """Take a real database for each out of its pool; wait until there is one."""
    pools = {
        core: real_databases_for(core, schemas) for core in map(core_of, databases)
    }
    return {core: pool.take() for core, pool in pools.items()}


class RealDatabase:
    """A database of its own for one test; the application's engine connects to it."""

    def __init__(
        self,
        core: DatabaseCore,
        lent: LentDatabase,
        portal: Portal | None,
        replicas: Collection[Engine],
        inside: Callable[[Callable[[], Any]], Callable[[], Any]],
    ) -> None:
        self.core = core
        self._lent = lent
        self._portal = portal
        self._inside = inside
        """Lets a function belong to the sandbox, wherever it is called."""
        self._sessions: list[Any] = []
        engines = [core.own_factory.engine, *replicas]
        self.routes = {
            each: Route(each, lent.url) for each in map(root_engine, engines)
        }
        self._without_replicas = (
            None if core.replicas is None else core.factory_for(lambda engine: engine)
        )
        """Replicas have the application's own database, and not that of the test."""
        self._is_kept = False
        self._is_closed = False

    @property
    def factory(self) -> SessionFactory:
        return self._without_replicas or self.core.own_factory

    def own_session(self, *, is_async: bool) -> Session | AsyncSession:
        """Make a session of the test's own, which is in no unit."""
        factory = self.core.own_factory
        made = factory.make_plain_session(self._own_bind, is_async=is_async)
        self._sessions.append(made)
        if self.core.is_async and not is_async:
            self._do_in_loop(made)
        return made

    def _own_bind(self, engine: Engine) -> Engine:
        """The same: its route leads to the test's database, until that is closed."""
        if self._is_closed:
            raise SandboxError("this sandbox is closed: its test is over")
        return engine

    def _do_in_loop(self, session: Any) -> None:
        """Let a sync session of an async driver do its I/O in an event loop."""
        portal = self._portal
        assert portal is not None
        for name in _WITH_IO:
            setattr(session, name, self._in_loop(portal, getattr(session, name)))

    def _in_loop(
        self, portal: Portal, method: Callable[..., Any]
    ) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **options: Any) -> Any:
            return portal.call(self._inside(lambda: method(*args, **options)))

        return call

    def keep(self) -> list[str]:
        """Keep it after its use; return its URL."""
        self._is_kept = True
        return [self._lent.address]

    def close(self) -> None:
        """Close all connections, and give the database back."""
        self._is_closed = True
        self._sessions.clear()
        for route in self.routes.values():
            route.close()
        self._lent.give_back(keep=self._is_kept)
