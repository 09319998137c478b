"""Makes the sessions of one engine, or of one sessionmaker."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import SingletonThreadPool

from .._driver.sqlalchemy_internals import adopt_event_loop
from .._engine.admission import gate_of
from .._engine.begin import TRANSACTION, BindCache, Release
from .._engine.create import capacity, is_shared_by_design
from .._engine.sqlite import reads_only
from .._engine.sqlite_units import has_defaults
from .._redaction import described
from .._replicas.replica_set import ReplicaSet
from .._transaction.commit_events import CommitSender, sender_of
from ..errors import UsageError
from .async_fence import fenced_async
from .binds import (
    binds_connection,
    engines_of,
    rebound_binds,
    redirected_class,
    sync_binds,
)
from .fence import fence, fenced
from .opening import Opening

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from ..settings import DatabaseSettings
    from .owner import SessionOwner
    from .unit_session import UnitSession

__all__ = ["SessionFactory"]


class SessionFactory:
    """Makes the sessions of one engine, or of one sessionmaker.

    Lives as long as its database has that engine.
    """

    def __init__(
        self,
        given: object,
        *,
        is_async: bool,
        session_class: type[Any] | None,
        options: Mapping[str, Any],
        release: Release = TRANSACTION,
        replace: Callable[[Engine], Engine] | None = None,
    ) -> None:
        self.given = given
        self._is_async = is_async
        self._session_class = session_class
        self._options = options
        maker = self._maker
        self._bind = maker.kw.get("bind") if maker is not None else None
        self._replace = replace
        """Gives the engine to use in place of each that was *given*: see `redirect`."""
        self.engines = engines_of(given)
        self._check()
        if replace is not None:
            self.engines = [replace(engine) for engine in self.engines]
        self.engine = engine = self.engines[0]
        waits = not is_async or is_shared_by_design(engine)
        self.gate = gate_of(engine) if waits else None
        self.takes_write_lock = has_defaults(engine.dialect) and not reads_only(
            engine.url
        )
        self.replicas: ReplicaSet | None = None
        """Set for the database itself; that of a test reads from where it writes."""
        self.opening: Opening | None = None
        """That of all units, if it is the same for all: see `open()`."""
        self._makes_sync_session = False
        """Whether the session class gives a `sync_session_class` of its own."""
        self._loop: AbstractEventLoop | None = None
        """The event loop in which the last session was made."""
        # A sessionmaker is read each time: configure() may have changed it.
        self._recipe = self._recipe_of(None) if maker is None else None
        self.binds = BindCache(
            self.engines,
            defers_write_lock=self.takes_write_lock,
            shares_transactions=binds_connection(given),
            release=release,
        )

    @property
    def _maker(self) -> sessionmaker[Session] | None:
        return self.given if hasattr(self.given, "kw") else None  # type: ignore[return-value]  # either kind

    def _check(self) -> None:
        engines = self.engines
        flavour = "AsyncDatabase" if self._is_async else "Database"
        wanted = "an async" if self._is_async else "a sync"
        given = described(self.given)
        if not engines:
            raise UsageError(
                f"{flavour} was given {given}; give a URL, {wanted} engine, "
                f"{wanted} sessionmaker bound to an engine, or a callable returning one"
            )
        if any(engine.dialect.is_async is not self._is_async for engine in engines):
            other = "Database" if self._is_async else "AsyncDatabase"
            raise UsageError(
                f"{flavour} was given {given}, which is not {wanted} one; use {other}"
            )
        if any(isinstance(engine.pool, SingletonThreadPool) for engine in engines):
            raise UsageError(
                "SingletonThreadPool has a connection for each thread, and a unit of "
                "work is used by several. Leave poolclass out, and give the URL: "
                f"{flavour} shares an SQLite database in memory between all threads"
            )
        if self._maker is not None and self._session_class is not None:
            raise UsageError(
                "session_class goes with a URL or an engine; a sessionmaker has its "
                "own class_"
            )

    @property
    def is_outdated(self) -> bool:
        """Whether `configure()` has given the sessionmaker another engine."""
        maker = self._maker
        return maker is not None and maker.kw.get("bind") is not self._bind

    def open(
        self, owner: SessionOwner[UnitSession], settings: DatabaseSettings
    ) -> Opening:
        """What the session of *owner* is used with: the same for all, but in tests."""
        self.opening = Opening(settings, self.gate, self.binds, self.replicas)
        return self.opening

    def make_plain_session(
        self, replace: Callable[[Engine], Engine], *, is_async: bool
    ) -> Session | AsyncSession:
        """Make a session as the application would, on the engines of *replace*.

        It belongs to no unit. One that is not *is_async*, of an async database, is of
        the sync session class: for what runs outside of coroutines.
        """
        session_class, options = self._plain_recipe_of(self._maker)
        if self._is_async:
            given = options.pop("sync_session_class", None)
            sync_class = given or session_class.sync_session_class
        else:
            sync_class = session_class
        redirected = redirected_class(sync_class, replace)
        if is_async:
            made: AsyncSession = session_class(
                **{**options, "sync_session_class": redirected}
            )
            return made
        return redirected(**{**options, **sync_binds(options)})

    def commit_senders(self) -> Collection[CommitSender]:
        """What sends the COMMITs of its sessions; a test lets them fail."""
        dialects = {engine.dialect: None for engine in self.engines}
        return [sender_of(dialect) for dialect in dialects]

    @property
    def capacity(self) -> int | None:
        """How many units can be connected at once; `None` without a limit."""
        return capacity(self.engine)

    def make_session(self) -> Session | AsyncSession:
        session_class, options = self._recipe or self._recipe_of(self._maker)
        if not self._is_async:
            return session_class(**options)  # type: ignore[no-any-return]  # any class
        try:
            loop = get_running_loop()
        except RuntimeError:  # in a thread; it connects in the event loop's
            pass
        else:
            if loop is not self._loop:
                self._adopt(loop)
        if self._makes_sync_session:
            options = {**options}
            del options["sync_session_class"]
        try:
            session: AsyncSession = session_class(**options)
        except TypeError as error:
            if self._makes_sync_session or "sync_session_class" not in str(error):
                raise
            self._makes_sync_session = True  # it gives one itself, in its `__init__`
            return self.make_session()
        made = session.sync_session
        if type(made) is not options.get("sync_session_class"):
            fence(made)
        return session

    def _adopt(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        replicas = self.replicas
        others = [] if replicas is None else replicas.known_engines
        for engine in [*self.engines, *others]:
            adopt_event_loop(engine, loop)

    def _plain_recipe_of(self, maker: Any) -> tuple[Any, dict[str, Any]]:
        if maker is not None:
            return maker.class_, {**maker.kw, **self._options}
        session_class = self._session_class or _default_class(self._is_async)
        options = {"bind": self.given, "expire_on_commit": False, **self._options}
        return session_class, options

    def _recipe_of(self, maker: Any) -> tuple[Any, dict[str, Any]]:
        """The class of the sessions, and its arguments, as of now."""
        session_class, options = self._plain_recipe_of(maker)
        if self._replace is not None:
            options |= rebound_binds(options, self._replace)
        options["close_resets_only"] = False
        if not self._is_async:
            return fenced(session_class), options
        sync_class = (
            options.get("sync_session_class") or session_class.sync_session_class
        )
        options["sync_session_class"] = fenced(sync_class)
        return fenced_async(session_class), options


def _default_class(is_async: bool) -> type[Any]:
    if not is_async:
        return Session
    from sqlalchemy.ext.asyncio import AsyncSession  # needs greenlet

    return AsyncSession
