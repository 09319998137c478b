"""Finds session-level state that a unit has left, and discards its connection.

Settings, locks, temporary tables and the like outlive the transaction, and would be
there in the next request. A unit without such statements pays no round trip.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import event
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from .._call_site import level_of_the_caller
from .._sql.session_statements import LONG, Trace, find_traces, known_traces, outlasting
from ..errors import SessionStateWarning, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

__all__ = [
    "IS_DIRTY",
    "has_traces",
    "listen",
    "move_traces",
    "note_traces",
    "refuse_traces",
]

log = logging.getLogger("unitwork")

_TRACES = "unitwork.traces"
"""In the `info` of a connection: what its unit may have left behind."""
IS_DIRTY = "unitwork.is_dirty"
"""In the same place, once the unit has ended: session-level state is left there."""
_refusing: WeakSet[Dialect] = WeakSet()
_MOST_WARNINGS = 100  # of one engine
_warned: WeakKeyDictionary[Dialect, set[str]] = WeakKeyDictionary()

_POSTGRESQL = """
SELECT EXISTS (SELECT 1 FROM pg_locks
  WHERE locktype = 'advisory' AND granted AND pid = pg_backend_pid())
OR EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = pg_my_temp_schema())
OR EXISTS (SELECT 1 FROM pg_prepared_statements WHERE from_sql)
OR EXISTS (SELECT 1 FROM pg_cursors WHERE is_holdable)
OR EXISTS (SELECT 1 FROM pg_listening_channels())
"""
_SQLITE = """
SELECT EXISTS (SELECT 1 FROM sqlite_temp_master)
OR EXISTS (SELECT 1 FROM pragma_database_list WHERE name NOT IN ('main', 'temp'))
"""
_MYSQL = "SELECT RELEASE_ALL_LOCKS()"  # how many there were
_QUESTIONS = {
    "postgresql": _POSTGRESQL,
    "sqlite": _SQLITE,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}


def note_traces(context: Any, statement: str, parameters: Any) -> None:
    """Record what *statement*, of a unit, may leave behind; before it is executed.

    Also one that fails may have taken a lock. Warns, once, of what it certainly leaves;
    raises `UsageError` behind a pooler.
    """
    dialect = context.dialect
    compiled = context.compiled
    template = statement if compiled is None else compiled.string or statement
    if len(template) <= LONG and not known_traces(dialect.name, template):
        return  # as nearly always
    found = find_traces(dialect.name, template, statement, parameters)
    if not found:
        return
    if dialect in _refusing:
        _refuse(outlasting(found, dialect.name, template))
    else:
        info = context.root_connection.connection.info
        info.setdefault(_TRACES, []).extend(found)
        _warn(dialect, (trace for trace in found if trace.is_certain))


def refuse_traces(dialect: Dialect) -> None:
    """Raise `UsageError` from now on for statements of units that may leave something.

    A pooler would hand that to other clients.
    """
    _refusing.add(dialect)


def _refuse(lasting: Iterable[Trace]) -> None:
    for label, _, remedy in lasting:
        raise UsageError(
            f"{label!r} outlives the transaction, and transaction_pooler=True is set: "
            f"the pooler would hand what it leaves to other clients. Instead, {remedy}"
        )


def has_traces(connection: Connection) -> bool:
    """Whether statements of its unit may have left something on *connection*."""
    return bool(connection.info.get(_TRACES))


def move_traces(info: dict[Any, Any], to: dict[Any, Any]) -> None:
    """Record those in the *info* of one connection in that of another."""
    to.setdefault(_TRACES, []).extend(info.pop(_TRACES, []))


def listen(engine: Engine) -> None:
    """Mark connections of *engine* on which a unit has left session-level state.

    The pool's checkin discards them. Not one that is shared by design: the database may
    be lost with it.
    """
    dialect = engine.dialect
    is_shared = isinstance(engine.pool, StaticPool | SingletonThreadPool)

    @event.listens_for(engine, "reset")
    def reset(
        dbapi_connection: Any,
        record: ConnectionPoolEntry | None,
        pool_state: PoolResetState,
    ) -> None:
        if record is None:  # `connection.detach()`: no one else will use it
            return
        traces: list[Trace] = record.info.pop(_TRACES, [])
        if not traces or pool_state.terminate_only:
            return
        if any(trace.is_certain for trace in traces) or not pool_state.asyncio_safe:
            record.info[IS_DIRTY] = not is_shared
        elif _is_left(dialect, dbapi_connection):
            record.info[IS_DIRTY] = not is_shared
            _warn(dialect, traces)


def _is_left(dialect: Dialect, dbapi_connection: Any) -> bool:
    """Query the database, once the transaction is over; `True` if that fails."""
    try:
        dialect.do_rollback(dbapi_connection)
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute(_QUESTIONS[dialect.name])
            (found,) = cursor.fetchone()
        finally:
            cursor.close()
        dialect.do_rollback(dbapi_connection)
    except Exception as error:
        log.info("the session-level state of a connection is unknown", exc_info=error)
        return True
    return bool(found)


def _warn(dialect: Dialect, traces: Iterable[Trace]) -> None:
    warned = _warned.setdefault(dialect, set())
    for trace in traces:
        if trace.label in warned or len(warned) >= _MOST_WARNINGS:
            continue
        warned.add(trace.label)
        warnings.warn(
            f"{trace.label!r} outlives the transaction: the next request would find "
            "what it has left on the pooled connection, so that is dropped, each time. "
            f"Instead, {trace.remedy}",
            SessionStateWarning,
            stacklevel=level_of_the_caller(),
        )
