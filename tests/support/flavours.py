"""Each database and driver under test, sync and async, behind one face."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest
from anyio import to_thread
from fastapi import Depends
from sqlalchemy import URL, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support import outside
from support.models import create_tables
from support.through import behind, through
from unitwork import AsyncDatabase, Database

FLAVOURS = {
    "sqlite3": "sqlite",
    "aiosqlite": "sqlite+aiosqlite",
    "psycopg": "postgresql+psycopg",
    "psycopg-async": "postgresql+psycopg",
    "asyncpg": "postgresql+asyncpg",
    "pymysql": "mysql+pymysql",
    "asyncmy": "mysql+asyncmy",
}

ASYNC = ["aiosqlite", "psycopg-async", "asyncpg"]
SYNC = ["sqlite3", "psycopg"]
POSTGRESQL = ["psycopg", "psycopg-async", "asyncpg"]
EVERY = ["sqlite3", "aiosqlite", *POSTGRESQL]
MARIADB = ["pymysql", "asyncmy"]
"""Asked for where a driver or its server has a say: not every machine has MariaDB."""
SERVERS = [*POSTGRESQL, *MARIADB]


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test with these flavours and no others."""
    return pytest.mark.parametrize("flavour", list(names), indirect=True)


everywhere = only(*EVERY, *MARIADB)
FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""


def kind_of(name: str) -> type[Database] | type[AsyncDatabase]:
    return Database if name in (*SYNC, "pymysql") else AsyncDatabase


@dataclass
class Flavour:
    """A database with its driver. Bodies are written once, for a sync `Session`."""

    name: str
    url: str
    db: Any
    """A `Database` or `AsyncDatabase`."""

    @property
    def is_async(self) -> bool:
        return isinstance(self.db, AsyncDatabase)

    @property
    def is_sqlite(self) -> bool:
        return "sqlite" in self.name

    @property
    def sync_engine(self) -> Engine:
        return getattr(self.db.engine, "sync_engine", self.db.engine)

    def another(self, **options: Any) -> Flavour:
        """A second database object on the same database, with other *options*."""
        kind = AsyncDatabase if self.is_async else Database
        given = behind(self.url, options)
        return Flavour(self.name, self.url, kind(through(self.url), **given))

    def endpoint(self, body: Callable[[Session], Any]) -> Callable[..., Any]:
        """A FastAPI endpoint of this flavour's colour that runs *body*."""
        injected = Depends(self.db.session)
        if self.is_async:

            async def async_endpoint(session: AsyncSession = injected) -> Any:
                return await session.run_sync(body)

            return async_endpoint

        def endpoint(session: Session = injected) -> Any:
            return body(session)

        return endpoint

    async def work(self, body: Callable[[Session], Any], **options: Any) -> Any:
        """Run *body* in a `transaction()` block, away from the event loop's thread."""
        if self.is_async:
            async with self.db.transaction(**options) as session:
                return await session.run_sync(body)

        def block() -> Any:
            with self.db.transaction(**options) as session:
                return body(session)

        return await to_thread.run_sync(block)

    @asynccontextmanager
    async def block(self, **options: Any) -> AsyncIterator[Any]:
        """A `transaction()` block of either colour; the session is for `do()`."""
        if self.is_async:
            async with self.db.transaction(**options) as session:
                yield session
        else:
            with self.db.transaction(**options) as session:
                yield session

    async def do(self, session: Any, body: Callable[[Session], Any]) -> Any:
        """Run *body* with *session*, whatever its colour."""
        if self.is_async:
            return await session.run_sync(body)
        return await to_thread.run_sync(body, session)

    async def create_tables(self) -> None:
        if self.is_async:
            async with self.db.engine.begin() as connection:
                await connection.run_sync(create_tables, anew=True)
        else:
            with self.db.engine.begin() as connection:
                create_tables(connection, anew=True)

    async def dispose(self) -> None:
        result: Awaitable[None] | None = self.db.dispose()
        if result is not None:
            await result


def connect_mariadb(url: URL) -> pymysql.Connection[Any]:
    """Connect to MariaDB from outside, without any of SQLAlchemy."""
    return pymysql.connect(
        host=url.host,
        port=url.port or 0,
        user=url.username,
        database=url.database,
        autocommit=True,
        ssl_disabled=True,  # or it prepares for TLS, which takes 30 times as long
    )


class Observer:
    """Looks at the same database through another connection, outside any pool."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._backend = self._url.get_backend_name()

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        if self._backend == "sqlite":
            connection = sqlite3.connect(Path(self._url.database or ""), timeout=5)
            try:
                return list(connection.execute(sql))
            finally:
                connection.close()
        if self._backend == "mysql":
            with connect_mariadb(self._url) as line, line.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        plain = self._url.set(drivername="postgresql").render_as_string(False)
        return outside.query(plain, sql)

    def names(self) -> list[str]:
        """The names of the items that anybody else can see just now."""
        return [row[0] for row in self._query("SELECT name FROM item ORDER BY id")]

    def children(self) -> int:
        return int(self._query("SELECT count(*) FROM child")[0][0])

    def in_transaction(self) -> list[tuple[Any, ...]]:
        """The server's connections that hang in a transaction; none in SQLite."""
        return self._query(IN_TRANSACTION[self._backend])

    def terminate_all(self) -> None:
        """End every other connection to this database, and wait; not in SQLite."""
        if self._backend == "postgresql":
            self._query(
                f"SELECT pg_terminate_backend(pid, 5000) {OTHERS[self._backend]}"
            )
            return
        for row in self._query(f"SELECT id {OTHERS[self._backend]}"):
            with suppress(pymysql.OperationalError):  # it has ended meanwhile
                self._query(f"KILL {row[0]}")


IN_TRANSACTION = {
    "sqlite": "SELECT 0 WHERE 0",
    "postgresql": """
        SELECT pid, state, query FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'
    """,
    "mysql": """
        SELECT processlist_id, state, processlist_info
        FROM performance_schema.events_transactions_current
        JOIN performance_schema.threads USING (thread_id)
        WHERE processlist_db = DATABASE() AND state = 'ACTIVE'
        AND processlist_command = 'Sleep'
    """,
}
OTHERS = {
    "postgresql": """
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
    """,
    "mysql": """
        FROM information_schema.processlist
        WHERE db = DATABASE() AND id <> CONNECTION_ID()
    """,
}
