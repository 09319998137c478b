"""What a sandbox costs a test, on PostgreSQL.

    python tools/postgres.py -- python -m benchmarks.sandboxes

Each test has one unit of work that writes and one that reads. Four ways of isolation
take turns, so that a busy machine is busy for all of them: none (the table is emptied
by nothing), a session of `db.override()`, and a sandbox by `with` and by `async with`.
Prints the medians of the time and of this process's CPU time, in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from sqlalchemy import insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from unitwork import AsyncDatabase
from unitwork.testing import sandbox

ROUNDS = 200


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "sandbox_row"
    id: Mapped[int] = mapped_column(primary_key=True)


class Figures(NamedTuple):
    """What one test has taken, in seconds."""

    elapsed: float
    cpu: float


Way = Callable[[AsyncDatabase], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def none(db: AsyncDatabase) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def override(db: AsyncDatabase) -> AsyncIterator[None]:
    async with db.engine.connect() as connection, connection.begin() as outermost:
        session = AsyncSession(
            connection,
            join_transaction_mode="create_savepoint",
            expire_on_commit=False,
        )
        async with session:
            with db.override(session):
                yield
        await outermost.rollback()


@asynccontextmanager
async def by_with(db: AsyncDatabase) -> AsyncIterator[None]:
    with sandbox(db):
        yield


@asynccontextmanager
async def by_async_with(db: AsyncDatabase) -> AsyncIterator[None]:
    async with sandbox(db):
        yield


WAYS: dict[str, Way] = {
    "none": none,
    "override()": override,
    "with sandbox()": by_with,
    "async with sandbox()": by_async_with,
}


async def one_test(db: AsyncDatabase, way: Way) -> Figures:
    begun, cpu_begun = time.perf_counter(), time.process_time()
    async with way(db):
        async with db.transaction() as session:
            await session.execute(insert(Row))
        async with db.transaction(read_only=False) as session:
            await session.scalar(select(Row.id).limit(1))
    return Figures(time.perf_counter() - begun, time.process_time() - cpu_begun)


async def measure(driver: str) -> None:
    url = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    db = AsyncDatabase(url.set(drivername=f"postgresql+{driver}"))
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    found: dict[str, list[Figures]] = {name: [] for name in WAYS}
    for number in range(ROUNDS):
        for name, way in WAYS.items():
            took = await one_test(db, way)
            if number >= ROUNDS // 10:  # the first ones connect
                found[name].append(took)
    for title, column in (("time", 0), ("CPU", 1)):
        medians = {
            name: statistics.median(each[column] for each in figures) * 1000
            for name, figures in found.items()
        }
        for name, median in medians.items():
            above = median - medians["none"]
            print(f"{driver:8} {title:5} {name:22} {median:6.2f} ms  {above:+.2f}")
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await db.dispose()


if __name__ == "__main__":
    for driver in ("asyncpg", "psycopg"):
        asyncio.run(measure(driver))
