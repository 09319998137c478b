"""Connections behind the pool's back."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy.ext.asyncio import AsyncEngine

from support.flavours import Flavour


def count_pings(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    dialect = flavour.sync_engine.dialect
    ping, pings = dialect.do_ping, []

    def counted(dbapi_connection: Any) -> bool:
        pings.append(dbapi_connection)
        return ping(dbapi_connection)

    monkeypatch.setattr(dialect, "do_ping", counted)
    return pings


@asynccontextmanager
async def connected(engine: Any) -> AsyncIterator[Any]:
    """Check a connection of *engine* out, and give the driver's own."""
    if isinstance(engine, AsyncEngine):
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            yield raw.driver_connection
    else:
        connection = await to_thread.run_sync(engine.connect)
        try:
            yield connection.connection.driver_connection
        finally:
            await to_thread.run_sync(connection.close)


async def driver_connection_of(engine: Any) -> Any:
    async with connected(engine) as driver_connection:
        return driver_connection


async def write_behind_the_pool(driver_connection: Any) -> None:
    """Begin a transaction, and write in it, unnoticed by SQLAlchemy."""
    for sql in ("BEGIN", "INSERT INTO item (name) VALUES ('ghost')"):
        done = await to_thread.run_sync(execute, driver_connection, sql)
        if inspect.isawaitable(done):
            await done


def execute(driver_connection: Any, sql: str) -> Any:
    """A coroutine, or what it gives."""
    if hasattr(driver_connection, "execute"):
        return driver_connection.execute(sql)
    return driver_connection.query(sql)
