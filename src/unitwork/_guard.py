"""Engine and pool events: a connection goes back clean, and comes out clean.

The listeners do no I/O, except for a ping after an idle time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from ._begin import listen_for_pragmas
from ._line import KEY, Line, in_transaction, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sqlalchemy import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

    from .options import DatabaseSettings

__all__ = ["follow", "guard", "sever"]

_guarded: WeakSet[Engine] = WeakSet()


def sever(driver_connection: Any) -> None:
    """Break off what another task or thread is doing with a connection; no I/O."""
    terminate = _terminator(driver_connection)
    if terminate is not None:
        terminate()
        return
    interrupt = getattr(driver_connection, "interrupt", None)
    if interrupt is not None:  # sqlite3, aiosqlite
        if (call := interrupt()) is not None:
            _start(call)
        return
    line = getattr(driver_connection, "_sock", driver_connection)  # pymysql, psycopg
    if not hasattr(line, "fileno"):
        return
    with (
        contextlib.suppress(Exception),  # closed already, each driver in its own words
        socket.socket(fileno=os.dup(line.fileno())) as ours,
    ):
        ours.shutdown(socket.SHUT_RDWR)


def _terminator(driver_connection: Any) -> Callable[[], object] | None:
    """What breaks a connection off, if only its own event loop may do so."""
    terminate: Callable[[], object] | None
    terminate = getattr(driver_connection, "terminate", None)  # asyncpg
    if terminate is None:  # asyncmy, aiomysql
        terminate = getattr(_transport(driver_connection), "abort", None)
    return terminate


def _transport(driver_connection: Any) -> Any:
    writer = getattr(driver_connection, "_writer", None)  # aiomysql; asyncmy had one
    return getattr(driver_connection if writer is None else writer, "_transport", None)


def guard(engine: Engine, settings: DatabaseSettings) -> None:
    """Listen to *engine*: once, however many databases share it."""
    if engine in _guarded:
        return
    _guarded.add(engine)
    is_async = engine.dialect.is_async
    ping_after = settings.ping_after_idle

    def connect(dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry) -> Line:
        loop = asyncio.get_running_loop() if is_async else None
        line = record.info[KEY] = Line(loop, record.driver_connection)
        return line

    def checkin(dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        if dbapi_connection is None:
            return
        line: Line | None = record.info.get(KEY)
        if line is None:  # connected before the guard listened
            if in_transaction(record.driver_connection):
                record.invalidate()
            return
        line.returned_at = time.monotonic()
        line.stream = None
        if line.severed or in_transaction(line.driver_connection):
            record.invalidate()

    def checkout(
        dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: object
    ) -> None:
        known: Line | None = record.info.get(KEY)
        # Without a line it was connected before the guard listened.
        line = known or connect(dbapi_connection, record)
        # A statement that outlived its session may have begun anew meanwhile.
        if in_transaction(line.driver_connection):
            raise DisconnectionError("the pooled connection is inside a transaction")
        if line.severed:
            raise DisconnectionError("the pooled connection was broken off")
        line.statements = 0
        line.begin()
        if line.loop is not None and line.loop is not asyncio.get_running_loop():
            _close_elsewhere(line.loop, record)
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
        line: Line | None = record.info.get(KEY)
        if line is not None and line.loop is not None and line.loop.is_closed():
            _hang_up(record.driver_connection)
        if engine.dialect.name == "sqlite":
            _roll_back(record.driver_connection)

    if is_async:
        event.listen(engine, "close", close)
    event.listen(engine, "connect", connect)
    event.listen(engine, "checkin", checkin)
    event.listen(engine, "checkout", checkout)
    if engine.dialect.name == "sqlite":
        listen_for_pragmas(engine)
    watch(engine)


def follow(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks of *loop* wait for connections, if those of another one have before.

    SQLAlchemy's queue belongs to the event loop in which somebody first had to wait.
    What lies in it stays there: `checkout` knows whose it is.
    """
    queue: Any = getattr(engine.pool, "_pool", None)  # private to SQLAlchemy, all this
    old: Any = getattr(queue, "__dict__", {}).get("_queue")
    if getattr(old, "_loop", None) in (None, loop):
        return
    new = type(old)(old.maxsize)
    while not old.empty():
        new.put_nowait(old.get_nowait())
    queue._queue = new


def _close_elsewhere(
    loop: asyncio.AbstractEventLoop, record: ConnectionPoolEntry
) -> None:
    """Leave a connection to *loop*, its own, if nothing of it can be awaited here.

    SQLAlchemy would try, fail, and leave it open.
    """
    terminate = _terminator(record.driver_connection)
    if terminate is None:  # aiosqlite, psycopg: any event loop can close them
        return
    with contextlib.suppress(RuntimeError):  # closed: see `_hang_up`
        loop.call_soon_threadsafe(terminate)
        record.dbapi_connection = None  # type: ignore[misc]  # it is, in every record


def _hang_up(driver_connection: Any) -> None:
    """End a connection whose event loop is closed, so that a close finds it closed."""
    terminate, transport = _terminator(driver_connection), _transport(driver_connection)
    if terminate is None:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        terminate()
    # What the loop would have called next; not there in uvloop, which has hung up.
    hang_up = getattr(transport, "_call_connection_lost", None)
    if hang_up is not None:
        hang_up(None)


def _roll_back(driver_connection: Any) -> None:
    """Let aiosqlite roll back before it closes.

    SQLite keeps the locks of a closed connection for as long as a cursor lives: in the
    traceback of a cancellation, say, until that is garbage-collected. No interrupt
    here: while a cursor lives it would hit the rollback as well.
    """
    with contextlib.suppress(RuntimeError):  # no event loop
        asyncio.get_running_loop()
        _start(driver_connection.rollback())
        # Or what is left of an interrupt stops the checkpoint that a close makes.
        _start(driver_connection.execute("SELECT 0 WHERE 0"))


def _start(call: Coroutine[Any, Any, object]) -> None:
    """Begin an aiosqlite *call* and don't wait: its thread has it in the queue then."""
    with contextlib.suppress(StopIteration, ValueError):  # closed already
        call.send(None).add_done_callback(_ignore)
    call.close()


def _ignore(result: asyncio.Future[object]) -> None:
    if not result.cancelled():
        result.exception()  # or asyncio would complain that nobody had asked
