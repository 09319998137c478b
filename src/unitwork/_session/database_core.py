"""The core of `Database` and `AsyncDatabase`: everything that needs no await."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from .._callables import check_callable
from .._concurrency.fork import forget_after_fork
from .._driver.application_name import check_name_can_be_set
from .._engine.begin import Release, check_release
from .._engine.create import open_engine
from .._engine.pool_events import guard
from .._observing.registry import Observers
from .._redaction import described
from .._replicas.replica import ReplicaStatus
from .._transaction.pooler import keep_nothing
from ..errors import UsageError
from ..settings import DatabaseSettings
from .arguments import checked_settings, replicas_of
from .binds import engines_of
from .factory import SessionFactory
from .fence import reporting
from .open_units import OpenUnits
from .opening import Opening
from .override import check_free
from .pool_status import PoolStatus
from .pools import watch_pools
from .replica_reading import ReplicaReading
from .reported_gate import ReportedGate
from .unit_session import UnitSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from .owner import SessionOwner

__all__ = ["DatabaseCore", "PoolStatus"]


class DatabaseCore:
    """One database of an application: its engine, sessions, overrides and open units.

    Lives as long as the application. Safe to use from several tasks and threads.
    """

    def __init__(
        self,
        given: object,
        *,
        is_async: bool,
        name: str,
        session_class: type[Any] | None,
        session_options: Mapping[str, object] | None,
        settings: DatabaseSettings | None,
        release: Release,
        engine_options: Mapping[str, Any],
        replicas: object = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise UsageError(
                f"name is {described(name)}; give a name, such as 'default'"
            )
        self.name = name
        self.is_async = is_async
        self.settings = checked_settings(settings, engine_options)
        check_release(release)
        self.release: Release = release
        """The release mode of its units, if they have no other."""
        self.override: Session | AsyncSession | None = None
        """The session that every unit gets during a test."""
        self.redirect: Callable[[DatabaseCore], SessionFactory] | None = None
        """Gives the factory of the caller's test: see `_session.redirection`."""
        self.owns_engine = isinstance(given, str | URL)
        self.open_units = OpenUnits()
        self.observers = Observers(partial(watch_pools, self))
        if self.settings.sql_tags or self.settings.application_name:
            self.observers.require_reports()
        self.ping_under_way: Future[None] | None = None
        """Of a sync database: it is there to be waited for by several."""
        self._session_class = session_class
        self._session_options = session_options or {}
        self._factory: SessionFactory | None = None
        self.replicas = replicas_of(replicas, self, engine_options)
        if self.replicas is not None:
            self.replicas.on_change = partial(watch_pools, self)
        self._given = given = self._opened(given, engine_options)
        forget_after_fork(self)
        is_maker = hasattr(given, "kw")
        self._late = callable(given) and not is_maker
        if self._late:
            check_callable("the callable that returns the engine", given)
        self._is_fixed = not self._late and not is_maker
        # A sessionmaker may be given its engine later, by configure().
        if not self._late and not (is_maker and not engines_of(given)):
            self._adopt(given)

    def forget_parent(self) -> None:
        self.open_units = OpenUnits()
        self.ping_under_way = None

    def _opened(self, given: object, engine_options: Mapping[str, Any]) -> object:
        """Create the engine, if a URL was *given*."""
        if isinstance(given, str | URL):
            return open_engine(
                given,
                is_async=self.is_async,
                sqlite_defaults=self.settings.sqlite_defaults,
                options=engine_options,
            )
        if engine_options:
            raise UsageError(
                f"{', '.join(sorted(engine_options))}: options of the engine go with a "
                "URL; an existing engine has its own"
            )
        return given

    @property
    def known_engine(self) -> Engine | None:
        """The engine, if it is known without calling the application."""
        return None if self._factory is None else self._factory.engine

    @property
    def factory(self) -> SessionFactory:
        """The factory in force, which is that of the test if one has redirected it."""
        return self.own_factory if self.redirect is None else self.redirect(self)

    @property
    def own_factory(self) -> SessionFactory:
        """That of its source; a source that is a callable is called each time."""
        factory = self._factory
        if self._is_fixed and factory is not None:
            return factory
        given: Any = self._given
        if self._late:
            given = given()
        if factory is None or factory.given is not given or factory.is_outdated:
            return self._adopt(given)
        return factory

    def _adopt(self, given: object) -> SessionFactory:
        factory = SessionFactory(
            given,
            is_async=self.is_async,
            session_class=self._session_class,
            options=self._session_options,
            release=self.release,
        )
        for engine in factory.engines:
            guard(engine)
            if self.settings.transaction_pooler:
                keep_nothing(engine)
            if self.settings.application_name is not None:
                check_name_can_be_set(engine)
        if self.replicas is not None:
            factory.replicas, self.replicas.primary = self.replicas, factory.engine
        self._factory = factory
        watch_pools(self)
        return factory

    def factory_for(
        self,
        replace: Callable[[Engine], Engine],
        make: Callable[..., SessionFactory] = SessionFactory,
    ) -> SessionFactory:
        """A factory of the same sessions, with other engines: those of *replace*."""
        return make(
            self.own_factory.given,
            is_async=self.is_async,
            session_class=self._session_class,
            options=self._session_options,
            release=self.release,
            replace=replace,
        )

    @property
    def async_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet

        factory = self.factory
        if isinstance(factory.given, AsyncEngine) and self.redirect is None:
            return factory.given
        return AsyncEngine(factory.engine)

    @contextmanager
    def overridden(self, session: Session | AsyncSession) -> Iterator[None]:
        sync_session = getattr(session, "sync_session", session)
        is_async = sync_session is not session
        if not isinstance(sync_session, Session) or is_async is not self.is_async:
            raise UsageError(
                f"database {self.name!r} can't be given {described(session)}"
            )
        before, self.override = self.override, session
        try:
            with reporting(sync_session):
                yield
        finally:
            self.override = before

    def open_session(self, owner: SessionOwner[UnitSession]) -> UnitSession:
        """Make a session for *owner*; it does not connect yet."""
        given = session = self.override
        if session is not None:
            check_free(session, owner)
            opening = Opening(self.settings)
        else:
            factory = self._factory
            if factory is None or not self._is_fixed or self.redirect is not None:
                factory = self.factory
            opening = factory.opening or factory.open(owner, self.settings)
            session = factory.make_session()
        self.open_units.add(owner)
        if opening.gate is not None and owner.report is not None:
            gate = ReportedGate(opening.gate, owner.report, self.name, self.name)
            opening = opening._replace(gate=gate)
        made = UnitSession(session, owner, self.name, opening, given is None)
        if opening.replicas is not None and opening.replicas.primary is not None:
            made.reading = ReplicaReading(opening.replicas, opening.replicas.primary)
            made.prepares_transactions = True
            if made.permit is not None:
                made.permit.find_gate = partial(made.reading.find_gate, made)
        return made

    @property
    def engines_to_dispose(self) -> list[Engine]:
        """Those of `dispose()`: all that are known without calling the application."""
        replicas = [] if self.replicas is None else self.replicas.known_engines
        return [self.own_factory.engine, *replicas]

    @property
    def own_engines(self) -> list[Engine]:
        """Those that were opened by their URLs."""
        main = [self.own_factory.engine] if self.owns_engine else []
        return main if self.replicas is None else [*main, *self.replicas.own_engines]

    def replica_status(self) -> list[ReplicaStatus]:
        if self.replicas is None:
            return []
        return [replica.status for replica in self.replicas.replicas]

    @property
    def known_engines(self) -> Collection[Engine]:
        """Its engines, as far as they are known without calling the application."""
        return () if self._factory is None else self._factory.engines

    def pool_status(self) -> PoolStatus:
        factory = self.factory
        gate, size = factory.gate, factory.capacity
        waiting = gate.waiting if gate is not None else 0
        pool = factory.engine.pool
        if not isinstance(pool, QueuePool):
            in_use = 0 if size is None or gate is None else gate.in_use
            return PoolStatus(size, in_use, 0, waiting)
        return PoolStatus(size, pool.checkedout(), pool.checkedin(), waiting)
