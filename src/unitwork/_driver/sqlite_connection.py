"""Connections of sqlite3, also those that aiosqlite has in a thread of its own.

Source: SQLite, "Interrupt A Long-Running Query".
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from anyio import CancelScope

from .._concurrency.unread_error import retrieve_exception
from .._concurrency.watchdog import Watchdog

__all__ = [
    "CLOSED_SQLITE",
    "CURSORS",
    "Interruption",
    "call_sqlite3",
    "close_aiosqlite",
    "close_cursors",
    "interrupt_aiosqlite",
    "is_closed_sqlite",
    "reads_snapshot",
    "sqlite3_connection",
    "start_aiosqlite_call",
]

T = TypeVar("T")

CURSORS = "unitwork_cursors"
"""The attribute of aiosqlite's connection with its cursors."""
CLOSED_SQLITE = (ValueError, sqlite3.ProgrammingError)
"""What aiosqlite and sqlite3 raise when a connection is closed."""
_INTERVAL = 0.01  # seconds between two interrupts
_TRIES = 20


def is_closed_sqlite(driver_connection: Any) -> bool:
    """Whether it is a connection of aiosqlite that has been closed."""
    return getattr(driver_connection, "_connection", driver_connection) is None


def sqlite3_connection(driver_connection: Any) -> Any:
    """The connection of sqlite3, also if aiosqlite has it; `None` if that is closed."""
    return getattr(driver_connection, "_connection", driver_connection)


def call_sqlite3(dbapi_connection: Any, call: Callable[[sqlite3.Connection], T]) -> T:
    """Call *call* with the connection of sqlite3, in the thread that it belongs to."""
    if isinstance(dbapi_connection, sqlite3.Connection):
        return call(dbapi_connection)
    result: T = dbapi_connection.run_async(
        lambda driver: driver._execute(call, sqlite3_connection(driver))
    )
    return result


def reads_snapshot(connection: sqlite3.Connection) -> bool:
    """Whether a cursor with more rows keeps an unused connection in a WAL snapshot.

    SQLite refuses a VACUUM while a statement is in progress; this one has no file to
    write to, and is refused for that otherwise.
    """
    try:
        connection.execute("VACUUM INTO NULL")
    except sqlite3.Error as error:
        if "SQL statements in progress" not in str(error):
            return False
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    return bool(mode == "wal")


def close_cursors(driver_connection: Any) -> None:
    """Let the thread of aiosqlite close the cursors that still exist."""
    cursors = list(getattr(driver_connection, CURSORS, ()))

    def close() -> None:
        for cursor in cursors:
            cursor.close()

    if cursors:
        start_aiosqlite_call(driver_connection._execute(close))


def start_aiosqlite_call(call: Coroutine[Any, Any, object]) -> bool:
    """Put an aiosqlite *call* into the queue of its thread, without waiting for it.

    Returns whether it was: not if the connection is closed.
    """
    started = False
    with contextlib.suppress(StopIteration, ValueError):  # closed already
        call.send(None).add_done_callback(retrieve_exception)
        started = True
    call.close()
    return started


class Interruption(Watchdog):
    """Interrupts the statements of a connection, until `stop()` or *is_over*.

    Once is not enough: SQLite ignores an interrupt that comes before the statement has
    begun, and another thread may be about to begin it.
    """

    __slots__ = ("_connection", "_is_over")

    def __init__(
        self, driver_connection: Any, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(_INTERVAL)
        self._connection = sqlite3_connection(driver_connection)
        self._is_over = is_over

    def start(self) -> None:
        """Interrupt for the first time a moment later, in another thread."""
        self.__enter__()

    def stop(self) -> None:
        """Interrupt no more: none is under way either when this returns."""
        self.__exit__()

    def expired(self) -> None:
        """Interrupt now, and again a moment later."""
        if self._connection is not None:
            with contextlib.suppress(*CLOSED_SQLITE):
                self._connection.interrupt()
                if not self._is_over():
                    self.start()


def interrupt_aiosqlite(driver_connection: Any) -> None:
    """Interrupt the calls that are in the queue of its thread now, and roll back.

    While a statement has more rows SQLite would interrupt those that follow, ROLLBACK
    as well. So all cursors of the connection are closed.
    """
    interruption = Interruption(driver_connection)
    connection = sqlite3_connection(driver_connection)
    cursors = list(getattr(driver_connection, CURSORS, ()))

    def end() -> None:
        interruption.stop()
        for cursor in cursors:
            cursor.close()
        _roll_back(connection)

    if start_aiosqlite_call(driver_connection._execute(end)):
        interruption.start()


def _roll_back(connection: sqlite3.Connection) -> None:
    """Roll back; again, while a cursor that has just been made still exists."""
    for _ in range(_TRIES):
        try:
            connection.rollback()
        except sqlite3.OperationalError:
            time.sleep(_INTERVAL)
        else:
            return


async def close_aiosqlite(driver_connection: Any, limit: float) -> None:
    """Close a connection once its thread has ended the calls in its queue.

    After *limit* seconds, or if this task is cancelled again, that is left to the
    thread. An anyio scope, which cancels again and again, does not count as that.
    """
    ended = False
    with CancelScope(shield=True):
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await driver_connection._execute(bool)
                ended = True
        except ValueError:
            return  # it is closed
        finally:
            if not ended:
                driver_connection.stop()
        if ended:
            await driver_connection.close()
