"""SQLite: in-memory databases, and pragmas for one transaction.

Sources: SQLite, "PRAGMA Statements", "Isolation In SQLite" and "In-Memory Databases".
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from uuid import uuid4
from weakref import finalize

from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool, StaticPool
from sqlalchemy.util import asbool

from .._driver.driver_connection import abort
from .._driver.sqlite_connection import interrupt_aiosqlite, sqlite3_connection
from .._transaction.connection_state import INFO_KEY, ConnectionState, state_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

__all__ = [
    "close_after_fork",
    "in_memory",
    "is_kept",
    "is_shared",
    "keep_connection",
    "keep_in_memory",
    "listen_for_pragmas",
    "reads_only",
    "released_on_failure",
    "roll_back_before_close",
    "shared_in_memory",
]


def reads_only(url: URL) -> bool:
    """Whether the URL of an SQLite database opens it read-only."""
    return url.query.get("mode") == "ro" or url.query.get("immutable") == "1"


def in_memory(url: URL) -> bool:
    """Whether the URL is that of an in-memory database, in any spelling."""
    if url.database in (None, "", ":memory:"):
        return True
    is_uri = asbool(url.query.get("uri", "false"))
    named = url.database == "file::memory:" or url.query.get("mode") == "memory"
    return is_uri and (named or url.query.get("vfs") == "memdb")


def is_shared(url: URL) -> bool:
    """Whether all connections of this process with the URL have one database."""
    query = url.query
    return query.get("cache") == "shared" or query.get("vfs") == "memdb"


def shared_in_memory(
    url: URL, is_async: bool, options: Mapping[str, Any]
) -> tuple[URL, dict[str, Any]]:
    """The URL and engine options of one database that all connections share.

    By default each connection has a database of its own. The pool holds one connection
    at a time: its users take turns.
    """
    options = {
        "poolclass": AsyncAdaptedQueuePool if is_async else QueuePool,
        **options,
    }
    if "pool" not in options and issubclass(options["poolclass"], QueuePool):
        options = {"pool_size": 1, "max_overflow": 0, **options}
    query = {"check_same_thread": "false", **url.query}
    if not is_shared(url):
        query = {k: v for k, v in query.items() if k not in ("mode", "cache")}
        query |= {"vfs": "memdb", "uri": "true"}
        url = url.set(database=f"file:/unitwork-{uuid4().hex}")
    return url.set(query=query), options


def keep_in_memory(engine: Engine) -> None:
    """Keep a shared in-memory database for as long as its *engine*.

    It would be deleted with its last connection.
    """
    given = engine.url.query.items()
    query = {key: value for key, value in given if key not in _OF_THE_DRIVER}
    uri = f"{engine.url.database}?{urlencode(query, doseq=True)}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    finalize(engine, connection.close)


_OF_THE_DRIVER = {
    "cached_statements",
    "check_same_thread",
    "detect_types",
    "isolation_level",
    "timeout",
    "uri",
}
"""Parameters that SQLAlchemy takes out of the URL of a database."""


def is_kept(engine: Engine) -> bool:
    """Whether *engine* has one connection for all, and its database ends with that."""
    if not isinstance(engine.pool, StaticPool) or is_shared(engine.url):
        return False
    return in_memory(engine.url)


def keep_connection(engine: Engine) -> None:
    """Let *engine* use its only connection again where it would replace it.

    SQLAlchemy replaces one that is invalidated, as when a statement is cancelled.
    """
    dialect = engine.dialect
    kept: list[Any] = []

    def do_terminate(dbapi_connection: Any) -> None:
        if dialect.is_async:
            with contextlib.suppress(RuntimeError):  # no event loop
                asyncio.get_running_loop()
                interrupt_aiosqlite(dbapi_connection.driver_connection)
        else:
            abort(dbapi_connection)
            with contextlib.suppress(sqlite3.Error):
                dbapi_connection.rollback()
        kept.append(dbapi_connection)

    setattr(dialect, "do_terminate", do_terminate)  # noqa: B010  # of this object alone

    @event.listens_for(engine, "do_connect")
    def do_connect(*args: object) -> Any:
        return kept.pop() if kept else None


@contextlib.contextmanager
def released_on_failure(connection: Connection) -> Iterator[None]:
    """Discard a *connection* that is being made: a cancellation would leak it."""
    try:
        yield
    except BaseException:
        connection.invalidate()
        connection.close()
        raise


def listen_for_pragmas(engine: Engine) -> None:
    """Set the pragmas of a transaction, and restore them at its end.

    SQLite has them for a connection, not for a transaction.
    """

    @event.listens_for(engine, "engine_connect")  # before BEGIN waits for a lock
    def engine_connect(connection: Connection) -> None:
        with released_on_failure(connection):
            _apply(connection, "busy_timeout")

    @event.listens_for(engine, "begin")  # before it, BEGIN IMMEDIATE would be refused
    def begin(connection: Connection) -> None:
        _apply(connection, "query_only")

    @event.listens_for(engine, "reset")
    def reset(
        dbapi_connection: Any,
        record: ConnectionPoolEntry | None,
        pool_state: PoolResetState,
    ) -> None:
        if record is None:  # `connection.detach()`: no one else will use it
            return
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


def roll_back_before_close(engine: Engine) -> None:
    """Let a connection of sqlite3 that is closed keep no lock.

    SQLite keeps it open for a cursor that has more rows, and an error that has
    interrupted the statement, a `KeyboardInterrupt`, keeps the cursor.
    """
    error = engine.dialect.loaded_dbapi.Error

    @event.listens_for(engine, "close")
    def close(dbapi_connection: Any, record: object) -> None:
        with contextlib.suppress(error):
            dbapi_connection.rollback()


def close_after_fork(driver_connection: Any) -> None:
    """Close a connection of the parent process, in the child, without its thread."""
    connection = sqlite3_connection(driver_connection)
    with contextlib.suppress(sqlite3.Error):  # it may be of another thread
        connection.close()
