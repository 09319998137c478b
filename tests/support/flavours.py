"""Each database and driver under test, sync and async, behind one face."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from anyio import to_thread
from fastapi import Depends
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.models import Base
from unitwork import AsyncDatabase, Database

FLAVOURS = {
    "sqlite3": "sqlite",
    "aiosqlite": "sqlite+aiosqlite",
    "psycopg": "postgresql+psycopg",
    "psycopg-async": "postgresql+psycopg",
    "asyncpg": "postgresql+asyncpg",
}

EVERY = list(FLAVOURS)
ASYNC = ["aiosqlite", "psycopg-async", "asyncpg"]
SYNC = ["sqlite3", "psycopg"]
POSTGRESQL = ["psycopg", "psycopg-async", "asyncpg"]


def only(*names: str) -> pytest.MarkDecorator:
    """Run a test with these flavours and no others."""
    return pytest.mark.parametrize("flavour", list(names), indirect=True)


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
        return Flavour(self.name, self.url, kind(self.url, **options))

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

    async def do(self, session: Any, body: Callable[[Session], Any]) -> Any:
        """Run *body* with *session*, whatever its colour."""
        if self.is_async:
            return await session.run_sync(body)
        return await to_thread.run_sync(body, session)

    async def create_tables(self) -> None:
        def create(connection: Connection) -> None:
            Base.metadata.drop_all(connection)
            Base.metadata.create_all(connection)

        if self.is_async:
            async with self.db.engine.begin() as connection:
                await connection.run_sync(create)
        else:
            with self.db.engine.begin() as connection:
                create(connection)

    async def dispose(self) -> None:
        result: Awaitable[None] | None = self.db.dispose()
        if result is not None:
            await result


class Observer:
    """Looks at the same database through a connection of its own, outside any pool."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._sqlite = self._url.get_backend_name() == "sqlite"

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        if self._sqlite:
            connection = sqlite3.connect(Path(self._url.database or ""), timeout=5)
            try:
                return list(connection.execute(sql))
            finally:
                connection.close()
        plain = self._url.set(drivername="postgresql").render_as_string(False)
        with psycopg.connect(plain, autocommit=True) as pg:
            return pg.execute(sql).fetchall()

    def names(self) -> list[str]:
        """The names of the items that anybody else can see just now."""
        return [row[0] for row in self._query("SELECT name FROM item ORDER BY id")]

    def children(self) -> int:
        return int(self._query("SELECT count(*) FROM child")[0][0])

    def in_transaction(self) -> list[tuple[Any, ...]]:
        """The server's connections that hang in a transaction (PostgreSQL)."""
        if self._sqlite:
            return []
        return self._query(
            "SELECT pid, state, query FROM pg_stat_activity WHERE datname = "
            "current_database() AND state LIKE 'idle in transaction%'"
        )

    def terminate_all(self) -> None:
        """Kill every other connection to this database (PostgreSQL)."""
        self._query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
