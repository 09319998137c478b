"""Engine and pool events: a connection goes back clean, and comes out clean.

The listeners do no I/O, except for a ping after an idle time. What they know about a
pooled connection is in its `Line`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakSet, ref

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext, ExecutionContext
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.pool import ConnectionPoolEntry

    from .options import DatabaseSettings

__all__ = ["Line", "guard", "in_transaction", "line_of", "sever"]

_KEY = "unitwork"
_SERVER_STATUS_IN_TRANS = 0x0001  # MySQL protocol, status flags

_guarded: WeakSet[Engine] = WeakSet()


class Line:
    """What is known of one pooled connection, beyond what its driver says."""

    __slots__ = ("loop", "returned_at", "statements", "stream")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self.returned_at: float | None = None
        self.statements = 0
        """How many statements are on their way to the server and back."""
        self.stream: ReferenceType[ExecutionContext] | None = None

    @property
    def streaming(self) -> bool:
        """Whether a server-side cursor is still open, as far as can be told."""
        context = self.stream() if self.stream is not None else None
        return context is not None and _is_open(context.cursor)


def line_of(connection: Connection) -> Line | None:
    """The line of an open *connection*; `None` once it is closed or thrown away."""
    if connection.closed or connection.invalidated:
        return None
    line: Line | None = connection.info.get(_KEY)
    return line


def in_transaction(driver_connection: Any) -> bool:
    """Ask the driver, without I/O, whether the connection is inside a transaction."""
    if driver_connection is None:
        return False
    ask = getattr(driver_connection, "is_in_transaction", None)
    if ask is not None:  # asyncpg
        return bool(ask())
    info = getattr(driver_connection, "info", None)
    status = getattr(info, "transaction_status", None)
    if status is not None:  # psycopg, psycopg2; 0 is IDLE
        return int(status) != 0
    status = getattr(driver_connection, "server_status", None)
    if status is not None:  # pymysql, asyncmy, aiomysql
        return bool(status & _SERVER_STATUS_IN_TRANS)
    try:  # sqlite3, aiosqlite
        return bool(getattr(driver_connection, "in_transaction", False))
    except ValueError:  # aiosqlite, closed already
        return False


def sever(driver_connection: Any) -> None:
    """Break off what a sync connection is doing in another thread."""
    interrupt = getattr(driver_connection, "interrupt", None)
    if interrupt is not None:  # sqlite3
        interrupt()
        return
    line = getattr(driver_connection, "_sock", driver_connection)  # pymysql
    if not hasattr(line, "fileno"):
        return
    with (
        contextlib.suppress(OSError, ValueError),
        socket.socket(fileno=os.dup(line.fileno())) as ours,
    ):
        ours.shutdown(socket.SHUT_RDWR)


def guard(engine: Engine, settings: DatabaseSettings) -> None:
    """Listen to *engine*: once, however many databases share it."""
    if engine in _guarded:
        return
    _guarded.add(engine)
    is_async = engine.dialect.is_async
    ping_after = settings.ping_after_idle

    def connect(dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_KEY] = Line(asyncio.get_running_loop() if is_async else None)

    def checkin(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        if dbapi_connection is None:
            return
        line = record.info.get(_KEY)
        if line is not None:
            line.returned_at = time.monotonic()
            line.stream = None
        if in_transaction(record.driver_connection):
            record.invalidate()

    def checkout(
        dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object
    ) -> None:
        # A statement that outlived its session may have begun anew meanwhile.
        if in_transaction(record.driver_connection):
            raise DisconnectionError("the pooled connection is inside a transaction")
        line: Line | None = record.info.get(_KEY)
        if line is None:  # connected before the guard listened
            connect(dbapi_connection, record)
            return
        line.statements = 0
        if is_async and line.loop is not asyncio.get_running_loop():
            raise DisconnectionError("the pooled connection is another event loop's")
        if (
            ping_after is not None
            and line.returned_at is not None
            and time.monotonic() - line.returned_at > ping_after
        ):
            ping(dbapi_connection)

    def ping(dbapi_connection: DBAPIConnection) -> None:
        try:
            alive = engine.dialect.do_ping(dbapi_connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError("the idle connection did not answer") from error
        if not alive:
            raise DisconnectionError("the idle connection is dead")

    def close(dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        # SQLite keeps the locks of a closed connection for as long as a cursor lives:
        # in the traceback of a cancellation, say, until that is garbage-collected.
        # And a statement that is under way goes on, in its thread.
        driver_connection: Any = record.driver_connection
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            _start(driver_connection.interrupt())
            _start(driver_connection.rollback())
            # Or what is left of the interrupt stops the checkpoint that a close makes.
            _start(record.driver_connection.execute("SELECT 0 WHERE 0"))

    if is_async and engine.dialect.name == "sqlite":
        event.listen(engine, "close", close)
    event.listen(engine, "connect", connect)
    event.listen(engine, "checkin", checkin)
    event.listen(engine, "checkout", checkout)
    event.listen(engine, "before_cursor_execute", _statement_begins)
    event.listen(engine, "after_cursor_execute", _statement_ends)
    event.listen(engine, "handle_error", _statement_fails)


def _statement_begins(
    connection: Connection, cursor: object, statement: str, *rest: object
) -> None:
    line = connection.info.get(_KEY)
    if line is not None:
        line.statements += 1


def _statement_ends(
    connection: Connection,
    cursor: DBAPICursor,
    statement: str,
    parameters: object,
    context: ExecutionContext,
    executemany: bool,
) -> None:
    line = connection.info.get(_KEY)
    if line is None:
        return
    if line.statements:
        line.statements -= 1
    options = context.execution_options
    if options and (options.get("stream_results") or options.get("yield_per")):
        line.stream = ref(context)


def _statement_fails(failure: ExceptionContext) -> None:
    connection = failure.connection
    if connection is None or failure.execution_context is None:
        return
    if failure.statement is not None:
        line = line_of(connection)
        if line is not None and line.statements:
            line.statements -= 1


def _start(call: Coroutine[Any, Any, object]) -> None:
    """Begin an aiosqlite *call* and don't wait: its thread has it in the queue then."""
    with contextlib.suppress(StopIteration, ValueError):  # closed already
        call.send(None)
    call.close()


def _is_open(cursor: Any) -> bool:
    """Whether a driver's cursor still has rows to come; "yes" if it can't be told."""
    if cursor is None:
        return False
    driver_cursor = getattr(cursor, "_cursor", cursor)  # SQLAlchemy's async adapters
    if driver_cursor is None:
        return False
    return not getattr(driver_cursor, "closed", False)
