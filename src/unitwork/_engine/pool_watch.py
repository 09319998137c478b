"""Reports the events of a pool to the observers of its databases, once it has some.

SQLAlchemy has no event for how long a pool lets its users wait, nor for a time-out: so
the pool's `connect()` is replaced, and its own one called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import Pool

from .._observing.event import PoolEvent, make_event
from .._observing.pool_events import (
    ConnectionCheckedIn,
    ConnectionClosed,
    ConnectionOpened,
    WaitEnded,
    WaitStarted,
)
from .._observing.registry import Observers
from .._observing.unit_report import UnitReport
from .per_pool import PerPool

__all__ = ["WatchedPool", "announce", "watch_pool"]


class _Connecting(NamedTuple):
    report: UnitReport
    database: str
    pool: Pool


_connecting: ContextVar[_Connecting | None] = ContextVar(
    "unitwork_connecting", default=None
)


def announce(
    report: UnitReport | None, database: str, bind: Engine | Connection
) -> None:
    """Let the pool of *bind*, which is about to be used, report the wait of a unit.

    To be called last of all: what fails in between would leave that to another user.
    """
    pool = bind.engine.pool
    _connecting.set(None if report is None else _Connecting(report, database, pool))


_STARTED = "unitwork_connect_started"
_TAKEN = "unitwork_taken_at"


class WatchedPool:
    """One pool, of one or more databases. Its listeners are called by any thread."""

    __slots__ = ("_observers",)

    def __init__(self) -> None:
        self._observers: dict[str, tuple[str, Observers]] = {}
        """By the names of the databases; each has a name of its own for the pool."""

    def report_to(self, database: str, pool: str, observers: Observers) -> None:
        self._observers[database] = pool, observers

    def _name_for(self, database: str) -> str:
        return self._observers.get(database, (database, None))[0]

    def _emit(self, kind: type[PoolEvent], *fields: object) -> None:
        """Report an event of *kind*, for all its databases."""
        now = time.monotonic()
        for name, (pool, observers) in self._observers.items():
            audience = observers.audience
            found = None if audience is None else audience.by_kind.get(kind)
            for each in found or ():
                each.deliver(make_event(kind, (now, None, name, pool, *fields)))

    # `Pool.connect()`

    def connect(self, connect: Callable[[], Any], pool: Pool) -> Any:
        """Call *connect*, that of *pool*, and report how long that takes."""
        unit = _connecting.get()
        if unit is None or unit.pool is not pool:
            with self._waiting():
                return connect()
        _connecting.set(None)
        database = unit.database
        with unit.report.waiting(database, self._name_for(database)):
            return connect()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        # For both events: an observer of the end alone would count one too many.
        audiences = {
            (name, pool): each.audience.by_kind
            for name, (pool, each) in self._observers.items()
            if each.audience is not None
        }
        began = time.monotonic()
        for names, by_kind in audiences.items():
            for each in by_kind.get(WaitStarted, ()):
                each.deliver(WaitStarted(began, None, *names))
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            now = time.monotonic()
            for names, by_kind in audiences.items():
                for each in by_kind.get(WaitEnded, ()):
                    each.deliver(WaitEnded(now, None, *names, now - began, error))

    # Listeners

    def do_connect(self, dialect: Any, record: Any, args: Any, kwargs: Any) -> None:
        if record is not None:
            record.record_info[_STARTED] = time.monotonic()

    def connect_event(self, dbapi_connection: Any, record: Any) -> None:
        now, started = time.monotonic(), record.record_info.pop(_STARTED, None)
        duration = None if started is None else now - started
        self._emit(ConnectionOpened, duration)

    def checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        record.record_info[_TAKEN] = time.monotonic()

    def checkin(self, dbapi_connection: Any, record: Any) -> None:
        taken_at = record.record_info.pop(_TAKEN, None)
        if taken_at is None:
            return
        self._emit(ConnectionCheckedIn, time.monotonic() - taken_at)

    def close(self, dbapi_connection: Any, record: Any) -> None:
        self._emit(ConnectionClosed)

    def detach(self, dbapi_connection: Any, record: Any) -> None:
        """Called when it is no connection of the pool's any more."""
        self.checkin(dbapi_connection, record)
        self.close(dbapi_connection, record)


def _watch(engine: Engine) -> WatchedPool:
    watched = WatchedPool()
    event.listen(engine, "do_connect", watched.do_connect)
    event.listen(engine, "connect", watched.connect_event)
    for name in ("checkout", "checkin", "close", "detach"):
        event.listen(engine, name, getattr(watched, name))
    event.listen(engine, "engine_disposed", lambda engine: _replace(engine, watched))
    _replace(engine, watched)
    return watched


def _replace(engine: Engine, watched: WatchedPool) -> None:
    """Replace `connect()` of the engine's pool, which is another one once disposed."""
    pool = engine.pool
    connect = pool.connect
    setattr(pool, "connect", lambda: watched.connect(connect, pool))  # noqa: B010  # its method


_watched = PerPool(_watch)


def watch_pool(
    engine: Engine, database: str, pool: str, observers: Observers
) -> WatchedPool:
    """Report the events of *engine*'s pool, named *pool*, to *observers*."""
    watched = _watched.of(engine)
    watched.report_to(database, pool, observers)
    return watched
