"""Engines opened by their URL, and good defaults for SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import finalize

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from .errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["capacity", "open_engine", "reads_only", "sync_engine"]

_ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg or postgresql+psycopg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}


def open_engine(
    given: str | URL,
    *,
    is_async: bool,
    sqlite_defaults: bool,
    options: Mapping[str, Any],
) -> Engine | AsyncEngine:
    """Create the engine for a URL; raise `UsageError` if the URL can't be right."""
    url = _checked(given, is_async)
    if url.get_backend_name() != "sqlite":
        return _create(url, is_async, options)
    if _in_memory(url):
        engine = _open_in_memory(url, is_async, options)
    else:
        engine = _create(url, is_async, options)
    if sqlite_defaults:
        _listen_for_sqlite(sync_engine(engine), wal=not _in_memory(url))
    return engine


def sync_engine(engine: Engine | AsyncEngine) -> Engine:
    """The engine under an `AsyncEngine`, on which events are listened for."""
    return engine if isinstance(engine, Engine) else engine.sync_engine


def capacity(engine: Engine) -> int | None:
    """How many connections the pool may hold; `None` if it knows no limit."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        return None
    overflow: int = pool._max_overflow  # public nowhere
    return None if overflow < 0 else pool.size() + overflow


def _create(
    url: URL, is_async: bool, options: Mapping[str, Any]
) -> Engine | AsyncEngine:
    try:
        if not is_async:
            return create_engine(url, **options)
        from sqlalchemy.ext.asyncio import create_async_engine  # needs greenlet

        return create_async_engine(url, **options)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{url.drivername!r} needs the package {error.name!r}, which is not "
            "installed"
        ) from error


def _open_in_memory(
    url: URL, is_async: bool, options: Mapping[str, Any]
) -> Engine | AsyncEngine:
    """One database for all connections, which take turns.

    Each connection would have a database of its own. This one lives for as long as
    `anchor` does, whatever becomes of the pooled connection.
    """
    name = f"file:/unitwork-{uuid4().hex}"
    anchor = sqlite3.connect(f"{name}?vfs=memdb", uri=True, check_same_thread=False)
    pool = AsyncAdaptedQueuePool if is_async else QueuePool
    options = {"poolclass": pool, "pool_size": 1, "max_overflow": 0, **options}
    query = {**url.query, "vfs": "memdb", "uri": "true"}
    engine = _create(url.set(database=name, query=query), is_async, options)
    finalize(sync_engine(engine), anchor.close)
    return engine


def _checked(given: str | URL, is_async: bool) -> URL:
    try:
        url = make_url(given)
        dialect = _dialect(url, is_async)
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UsageError(f"the database URL can't be used: {error}") from error
    if dialect.is_async is not is_async:
        raise UsageError(_wrong_flavour(url, is_async))
    return url


def _dialect(url: URL, is_async: bool) -> type[Dialect]:
    """The dialect that an engine would use: psycopg is either, as it is asked for."""
    dialect = url.get_dialect()
    return dialect.get_async_dialect_cls(url) if is_async else dialect


def _wrong_flavour(url: URL, is_async: bool) -> str:
    shown = url.render_as_string(hide_password=True)
    if is_async:
        fitting = _ASYNC_DRIVERS.get(url.get_backend_name(), "one with an async driver")
        return f"AsyncDatabase needs an async driver, {shown!r} has none; use {fitting}"
    return f"{shown!r} names an async driver; use AsyncDatabase, or a sync driver"


def _in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:")


def reads_only(url: URL) -> bool:
    """Whether an SQLite URL says that nobody writes."""
    return url.query.get("mode") == "ro" or url.query.get("immutable") == "1"


def _log_ahead(cursor: Any) -> None:
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY:
            raise


def _listen_for_sqlite(engine: Engine, *, wal: bool) -> None:
    """Write-ahead log, enforced foreign keys, and a BEGIN that takes the write lock.

    A transaction that reads first and writes later can't be granted the lock if another
    has written in between: it fails at once, whatever the busy timeout.
    """

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, record: object) -> None:
        dbapi_connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = dbapi_connection.cursor()
        try:
            cursor.execute("PRAGMA foreign_keys = ON")
            if wal:
                _log_ahead(cursor)
        except Exception:  # not a database, or locked
            dbapi_connection.close()  # nobody else would wait for aiosqlite's thread
            raise
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection._is_autocommit_isolation():  # private to SQLAlchemy
            return
        options = connection.get_execution_options()
        if statement := options.get("unitwork_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(statement)
