"""Pool events: a connection comes back clean, and is checked out clean.

The listeners do no I/O, except for a ping after an idle time.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from . import session_reset, sqlite, statement_events
from .connection_state import INFO_KEY, ConnectionState
from .driver_connection import in_transaction
from .event_loops import close_in_its_loop, hang_up

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["listen"]

_listening: WeakSet[Engine] = WeakSet()


def listen(engine: Engine, ping_after_idle: float | None) -> None:
    """Listen to *engine*: once, however many databases share it.

    A connection that was idle for more than *ping_after_idle* seconds is pinged when
    it is checked out; `None`: never.
    """
    if engine in _listening:
        return
    _listening.add(engine)
    events = _PoolEvents(engine.dialect, ping_after_idle)
    if engine.dialect.is_async:
        event.listen(engine, "close", events.close)
    event.listen(engine, "connect", events.connect)
    event.listen(engine, "checkin", events.checkin)
    event.listen(engine, "checkout", events.checkout)
    if engine.dialect.name == "sqlite":
        sqlite.listen_for_pragmas(engine)
    statement_events.listen(engine)
    session_reset.listen(engine)


class _PoolEvents:
    """The listeners of one engine, each named after its event."""

    __slots__ = ("_dialect", "_ping_after_idle")

    def __init__(self, dialect: Dialect, ping_after_idle: float | None) -> None:
        self._dialect = dialect
        self._ping_after_idle = ping_after_idle

    def connect(
        self, dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry
    ) -> None:
        self._new_state(record)

    def checkin(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        if dbapi_connection is None:
            return
        state: ConnectionState | None = record.info.get(INFO_KEY)
        if state is None:  # connected before we listened
            if in_transaction(record.driver_connection):
                record.invalidate()
            return
        state.returned_at = time.monotonic()
        state.server_side_cursor = None
        state.used_by_unit = False
        if state.aborted_by_client or in_transaction(state.driver_connection):
            record.invalidate()

    def checkout(
        self,
        dbapi_connection: DBAPIConnection,
        record: ConnectionPoolEntry,
        proxy: object,
    ) -> None:
        known: ConnectionState | None = record.info.get(INFO_KEY)
        state = known or self._new_state(record)  # connected before we listened
        # A statement that outlived its session may have begun a transaction since.
        if in_transaction(state.driver_connection):
            raise DisconnectionError("the pooled connection is inside a transaction")
        if state.aborted_by_client:
            raise DisconnectionError("the pooled connection was aborted")
        state.statements_in_flight = 0
        state.reset()
        if state.loop is not None and state.loop is not asyncio.get_running_loop():
            close_in_its_loop(state.loop, record)
            raise DisconnectionError("the pooled connection is another event loop's")
        if (
            self._ping_after_idle is not None
            and state.returned_at is not None
            and time.monotonic() - state.returned_at > self._ping_after_idle
        ):
            self._ping(dbapi_connection)

    def close(self, dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        state: ConnectionState | None = record.info.get(INFO_KEY)
        if state is not None and state.loop is not None and state.loop.is_closed():
            hang_up(record.driver_connection)
        if self._dialect.name == "sqlite":
            sqlite.roll_back_before_close(record.driver_connection)

    def _new_state(self, record: ConnectionPoolEntry) -> ConnectionState:
        loop = asyncio.get_running_loop() if self._dialect.is_async else None
        state = ConnectionState(loop, record.driver_connection)
        record.info[INFO_KEY] = state
        return state

    def _ping(self, dbapi_connection: DBAPIConnection) -> None:
        try:
            alive = self._dialect.do_ping(dbapi_connection)
        except self._dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the idle connection did not answer") from error
        if not alive:
            raise DisconnectionError("the idle connection is dead")
