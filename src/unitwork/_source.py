"""Where the sessions of a database come from: its engine, factory, gate and units."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.engine import URL, Connection
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from ._engine import pool_events
from ._engine.admission import AdmissionGate
from ._engine.begin import BindCache
from ._engine.create import capacity, open_engine
from ._engine.event_loops import adopt_event_loop
from ._engine.sqlite import reads_only
from ._session import Lease, fenced, hooked
from .errors import UsageError
from .options import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from ._unit import UnitOfWork

__all__ = ["PoolStatus", "Source"]


class PoolStatus(NamedTuple):
    """The connections of a database at one moment.

    *size*: how many the pool may hold, overflow included, `None` without a limit;
    *checked_out*: how many are in use; *idle*: how many lie in the pool;
    *waiting*: how many units wait at the gate of a sync database.

    .. versionadded:: 0.1
    """

    size: int | None
    checked_out: int
    idle: int
    waiting: int


class Source:
    """What `Database` and `AsyncDatabase` have in common: all but the awaits."""

    def __init__(
        self,
        given: object,
        *,
        is_async: bool,
        name: str,
        session_class: type[Any] | None,
        session_options: Mapping[str, object] | None,
        settings: DatabaseSettings | None,
        engine_options: Mapping[str, Any],
    ) -> None:
        if not isinstance(name, str) or not name:
            raise UsageError(f"name is {name!r}; give a name, such as 'default'")
        self.name = name
        self.is_async = is_async
        self.settings = settings or DatabaseSettings()
        self.override: Session | AsyncSession | None = None
        """A session that a test gives to everybody."""
        self.owns_engine = isinstance(given, str | URL)
        self._session_class = session_class
        self._session_options = session_options or {}
        self._units: set[UnitOfWork] = set()
        self._drained: Callable[[], object] | None = None
        self._factory: Factory | None = None
        if isinstance(given, str | URL):
            given = open_engine(
                given,
                is_async=is_async,
                sqlite_defaults=self.settings.sqlite_defaults,
                options=engine_options,
            )
        elif engine_options:
            raise UsageError(
                f"{', '.join(sorted(engine_options))}: options of the engine go with a "
                "URL; an engine that is made already has its own"
            )
        self._given = given
        is_maker = hasattr(given, "kw")
        self._late = callable(given) and not is_maker
        self._steady = not self._late and not is_maker
        # A sessionmaker may be told its engine later, by configure().
        if not self._late and not (is_maker and not _engines_of(given)):
            self._adopt(given)

    @property
    def known_engine(self) -> Engine | None:
        """The engine, if nobody has to be asked for it."""
        return None if self._factory is None else self._factory.engine

    @property
    def factory(self) -> Factory:
        """The factory in force; a callable is asked each time what it gives."""
        factory = self._factory
        if self._steady and factory is not None:
            return factory
        given: Any = self._given
        if self._late:
            given = given()
        if factory is None or factory.given is not given or factory.is_outdated:
            return self._adopt(given)
        return factory

    def _adopt(self, given: object) -> Factory:
        factory = Factory(
            given,
            is_async=self.is_async,
            session_class=self._session_class,
            options=self._session_options,
            defers_write_lock=self.owns_engine and self.settings.sqlite_defaults,
        )
        for engine in factory.engines:
            pool_events.listen(engine, self.settings.ping_after_idle)
        self._factory = factory
        return factory

    @property
    def async_engine(self) -> AsyncEngine:
        from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet

        given = self.factory.given
        return (
            given
            if isinstance(given, AsyncEngine)
            else AsyncEngine(self.factory.engine)
        )

    @contextmanager
    def overridden(self, session: Session | AsyncSession) -> Iterator[None]:
        sync_session = getattr(session, "sync_session", session)
        is_async = sync_session is not session
        if not isinstance(sync_session, Session) or is_async is not self.is_async:
            raise UsageError(f"database {self.name!r} can't be given {session!r}")
        before, self.override = self.override, session
        try:
            with hooked(sync_session):
                yield
        finally:
            self.override = before

    def lease(self, unit: UnitOfWork) -> Lease:
        """Make the session of *unit*; it does not connect yet."""
        session, gate, binds = self.override, None, None
        if owned := session is None:
            factory = self.factory
            session, gate, binds = factory.open(), factory.gate, factory.binds
        self._units.add(unit)
        return Lease(
            session,
            unit=unit,
            gate=gate,
            settings=self.settings,
            binds=binds,
            name=self.name,
            owned=owned,
        )

    def keeps_out(self, other: UnitOfWork, unit: UnitOfWork, lease: Lease) -> bool:
        """Whether *other* has to wait for *unit*, by what the *lease* of that holds.

        That may be the only connection, or SQLite's write lock.
        """
        if not lease.owned:
            return False  # all share the session of a test
        factory = self.factory
        connected = lease.open and bool(lease.connections)
        if capacity(factory.engine) == 1:
            return connected or bool(lease.places)
        may_write = unit._may_write or any(line.wrote for line in lease.lines)
        both_write = may_write and other._may_write
        return factory.takes_write_lock and connected and both_write

    def returned(self, unit: UnitOfWork) -> None:
        """Note that *unit* needs its session no more."""
        self._units.discard(unit)
        if self._drained is not None and not self._units:
            self._drained()

    async def drain(self) -> Sequence[UnitOfWork]:
        """Wait till no unit is open, within limits; give those that still are."""
        loop = asyncio.get_running_loop()
        empty = asyncio.Event()
        self._drained = lambda: loop.call_soon_threadsafe(empty.set)
        try:
            if self._units:
                async with asyncio.timeout(self.settings.drain_timeout):
                    await empty.wait()
        except TimeoutError:
            pass
        finally:
            self._drained = None
        return [unit for unit in self._units if not unit._is_lost]

    def pool_status(self) -> PoolStatus:
        factory = self.factory
        waiting = factory.gate.waiting if factory.gate is not None else 0
        pool = factory.engine.pool
        if not isinstance(pool, QueuePool):
            return PoolStatus(None, 0, 0, waiting)
        size = capacity(factory.engine)
        return PoolStatus(size, pool.checkedout(), pool.checkedin(), waiting)


class Factory:
    """Makes the sessions of one engine, or of one sessionmaker."""

    def __init__(
        self,
        given: object,
        *,
        is_async: bool,
        session_class: type[Any] | None,
        options: Mapping[str, Any],
        defers_write_lock: bool,
    ) -> None:
        self.given = given
        self._is_async = is_async
        self._session_class = session_class
        self._options = options
        maker = self._maker
        self._bind = maker.kw.get("bind") if maker is not None else None
        self.engines = _engines_of(given)
        self._check()
        self.engine = engine = self.engines[0]
        self.gate = None if is_async else _gate_for(engine)
        self.takes_write_lock = (
            defers_write_lock
            and engine.dialect.name == "sqlite"
            and not reads_only(engine.url)
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        """That in which the last session was made."""
        # A sessionmaker is asked anew each time: configure() may have changed it.
        self._recipe = self._recipe_of(None) if maker is None else None
        self.binds = BindCache(defers_write_lock=self.takes_write_lock)

    @property
    def _maker(self) -> sessionmaker[Session] | None:
        return self.given if hasattr(self.given, "kw") else None  # type: ignore[return-value]  # either kind

    def _check(self) -> None:
        engines = self.engines
        flavour = "AsyncDatabase" if self._is_async else "Database"
        wanted = "an async" if self._is_async else "a sync"
        if not engines:
            raise UsageError(
                f"{flavour} was given {self.given!r}; give a URL, {wanted} engine, "
                f"{wanted} sessionmaker bound to an engine, or a callable returning one"
            )
        if any(engine.dialect.is_async is not self._is_async for engine in engines):
            other = "Database" if self._is_async else "AsyncDatabase"
            raise UsageError(
                f"{flavour} was given {self.given!r}, which is not {wanted} one; "
                f"use {other}"
            )
        if self._maker is not None and self._session_class is not None:
            raise UsageError(
                "session_class goes with a URL or an engine; a sessionmaker has its "
                "own class_"
            )

    @property
    def is_outdated(self) -> bool:
        """Whether a sessionmaker has been given another engine: by `configure()`."""
        maker = self._maker
        return maker is not None and maker.kw.get("bind") is not self._bind

    def open(self) -> Session | AsyncSession:
        made_of, options = self._recipe or self._recipe_of(self._maker)
        if self._is_async:
            loop = asyncio._get_running_loop()
            if loop is not self._loop and loop is not None:
                self._loop = loop
                for engine in self.engines:
                    adopt_event_loop(engine, loop)
        session: Session | AsyncSession = made_of(**options)
        return session

    def _recipe_of(self, maker: Any) -> tuple[Any, dict[str, Any]]:
        """The class of the sessions, and what they are made with, as of now."""
        if maker is not None:
            made_of, options = maker.class_, {**maker.kw, **self._options}
        else:
            made_of = self._session_class or _default_class(self._is_async)
            options = {"bind": self.given, "expire_on_commit": False, **self._options}
        options["close_resets_only"] = False
        if not self._is_async:
            return fenced(made_of), options
        sync_class = options.get("sync_session_class") or made_of.sync_session_class
        options["sync_session_class"] = fenced(sync_class)
        return made_of, options


def _engines_of(given: Any) -> list[Engine]:
    """All engines that the sessions may use, the one for most things first."""
    binds = [given]
    if hasattr(given, "kw"):
        binds = [given.kw.get("bind"), *(given.kw.get("binds") or {}).values()]
    binds = [getattr(bind, "sync_connection", bind) for bind in binds]
    binds = [b.engine if isinstance(b, Connection) else b for b in binds]
    found = [getattr(bind, "sync_engine", bind) for bind in binds]
    return [engine for engine in found if isinstance(engine, Engine)]


def _default_class(is_async: bool) -> type[Any]:
    if not is_async:
        return Session
    from sqlalchemy.ext.asyncio import AsyncSession  # needs greenlet

    return AsyncSession


def _gate_for(engine: Engine) -> AdmissionGate:
    if isinstance(engine.pool, QueuePool):
        return AdmissionGate(capacity(engine), engine.pool.timeout())
    return AdmissionGate(None)
