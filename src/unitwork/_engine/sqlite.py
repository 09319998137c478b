"""Defaults of SQLite, in-memory databases, and pragmas for one transaction.

Sources: SQLite, "PRAGMA Statements", "Isolation In SQLite" and "In-Memory Databases".
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import finalize

from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from .connection_state import INFO_KEY, ConnectionState, state_of
from .driver_connection import sqlite3_connection, start_aiosqlite_call
from .sqlalchemy_internals import is_autocommit

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

__all__ = [
    "close_after_fork",
    "in_memory",
    "keep_in_memory",
    "listen_for_defaults",
    "listen_for_pragmas",
    "reads_only",
    "roll_back_before_close",
    "shared_in_memory",
]


def reads_only(url: URL) -> bool:
    """Whether the URL of an SQLite database opens it read-only."""
    return url.query.get("mode") == "ro" or url.query.get("immutable") == "1"


def in_memory(url: URL) -> bool:
    """Whether the URL is that of an in-memory database."""
    return url.database in (None, "", ":memory:")


def shared_in_memory(
    url: URL, is_async: bool, options: Mapping[str, Any]
) -> tuple[URL, dict[str, Any]]:
    """The URL and engine options of one database that all connections share.

    By default each connection has a database of its own. The pool holds one connection
    at a time: its users take turns.
    """
    pool = AsyncAdaptedQueuePool if is_async else QueuePool
    options = {"poolclass": pool, "pool_size": 1, "max_overflow": 0, **options}
    query = {**url.query, "vfs": "memdb", "uri": "true"}
    return url.set(database=f"file:/unitwork-{uuid4().hex}", query=query), options


def keep_in_memory(engine: Engine) -> None:
    """Keep a shared in-memory database for as long as its *engine*.

    It would be deleted with its last connection.
    """
    uri = f"{engine.url.database}?vfs=memdb"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    finalize(engine, connection.close)


def listen_for_defaults(engine: Engine, *, wal: bool) -> None:
    """Write-ahead log, enforced foreign keys, and a BEGIN that takes the write lock.

    A transaction that reads first and writes later fails if another one has written in
    between: it does not get the lock, and does not wait for the busy timeout.
    """

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, record: object) -> None:
        dbapi_connection.isolation_level = None  # BEGIN is sent below
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys = ON")
            if wal:
                _set_write_ahead_log(cursor)
        except Exception:  # not a database, or locked
            dbapi_connection.close()  # or aiosqlite's thread would go on
            raise
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if is_autocommit(connection):
            return
        options = connection.get_execution_options()
        if statement := options.get("unitwork_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(statement)


def _set_write_ahead_log(cursor: Any) -> None:
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY:
            raise


def listen_for_pragmas(engine: Engine) -> None:
    """Set the pragmas of a transaction, and restore them at its end.

    SQLite has them for a connection, not for a transaction.
    """

    @event.listens_for(engine, "engine_connect")  # before BEGIN waits for a lock
    def engine_connect(connection: Connection) -> None:
        _apply(connection, "busy_timeout")

    @event.listens_for(engine, "begin")  # before it, BEGIN IMMEDIATE would be refused
    def begin(connection: Connection) -> None:
        _apply(connection, "query_only")

    @event.listens_for(engine, "reset")
    def reset(
        dbapi_connection: Any, record: ConnectionPoolEntry, pool_state: PoolResetState
    ) -> None:
        state: ConnectionState | None = record.info.get(INFO_KEY)
        if state is None or not state.pragmas or pool_state.terminate_only:
            return
        pragmas, state.pragmas = state.pragmas, {}
        _set(dbapi_connection, pragmas, {})


def _apply(connection: Connection, name: str) -> None:
    pragmas = connection.get_execution_options().get("unitwork_pragmas")
    if pragmas is not None and name in pragmas and (state := state_of(connection)):
        _set(connection.connection, {name: pragmas[name]}, state.pragmas)


def _set(
    dbapi_connection: Any, pragmas: Mapping[str, Any], before: dict[str, Any]
) -> None:
    cursor = dbapi_connection.cursor()
    for name, value in pragmas.items():
        cursor.execute(f"PRAGMA {name}")
        before.setdefault(name, cursor.fetchone()[0])
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def roll_back_before_close(driver_connection: Any) -> None:
    """Let aiosqlite roll back before it closes.

    SQLite keeps the locks of a closed connection as long as one of its cursors exists,
    say in the traceback of a cancellation, until that is garbage-collected. It is not
    interrupted here: while a cursor exists that would interrupt the rollback as well.
    """
    with contextlib.suppress(RuntimeError):  # no event loop
        asyncio.get_running_loop()
        start_aiosqlite_call(driver_connection.rollback())
        # Or an earlier interrupt, still pending, stops the checkpoint of the close.
        start_aiosqlite_call(driver_connection.execute("SELECT 0 WHERE 0"))


def close_after_fork(driver_connection: Any) -> None:
    """Close a connection of the parent process, in the child, without its thread."""
    connection = sqlite3_connection(driver_connection)
    with contextlib.suppress(sqlite3.Error):  # it may be of another thread
        connection.close()
