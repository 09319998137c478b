"""SQLite: connections that are returned while one of their cursors has more rows.

SQLite keeps the snapshot that such a cursor reads from, for all that its connection
does: while the result exists, or an error that was raised meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any
from weakref import finalize

from sqlalchemy import event

from .._driver.sqlite_connection import close_cursors, reads_snapshot

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["end_snapshots"]


def end_snapshots(engine: Engine) -> None:
    """Let no user of a connection read from the snapshot of one before.

    A connection of sqlite3 is left to its cursor, which may be read on. aiosqlite has a
    thread that has to end, so its cursors are closed.
    """
    if engine.dialect.is_async:
        event.listen(engine, "checkin", _close_cursors)
        return
    left = _LeftToCursors()
    event.listen(engine, "checkin", left.checkin)
    event.listen(engine, "engine_disposed", left.engine_disposed)
    finalize(engine, left.close)


def _close_cursors(dbapi_connection: object, record: ConnectionPoolEntry) -> None:
    driver_connection = record.driver_connection
    if driver_connection is not None:
        with contextlib.suppress(RuntimeError):  # no event loop
            close_cursors(driver_connection)


class _LeftToCursors:
    """The connections that a pool has let go, until none of their cursors reads."""

    def __init__(self) -> None:
        self._connections: set[sqlite3.Connection] = set()

    def checkin(self, dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        connection: Any = record.driver_connection
        if connection is not None and reads_snapshot(connection):
            self._connections.add(connection)
            # As `connection.detach()` does.
            record.dbapi_connection = None  # type: ignore[misc]  # a slot of its base
        elif self._connections:
            self._close_unused()

    def engine_disposed(self, engine: Engine) -> None:
        self._close_unused()

    def close(self) -> None:
        self._close_unused(may_be_read=False)

    def _close_unused(self, *, may_be_read: bool = True) -> None:
        for each in list(self._connections):
            if may_be_read and reads_snapshot(each):
                continue
            self._connections.discard(each)
            with contextlib.suppress(sqlite3.Error):  # another thread has to close it
                each.close()
