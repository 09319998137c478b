"""A small pool under requests that wait: pinned connections, and released ones.

    python tools/postgres.py -- python -m benchmarks.connections [--requests 1000]

Each request reads, waits as if for another service, and writes. The pool has five
connections. The endpoints of "statement" and "pinned" are the same. Needs a PostgreSQL
server, UNITWORK_TEST_POSTGRESQL, and for MariaDB's drivers UNITWORK_TEST_MARIADB. With
--alter, the table is altered while all requests wait.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import create_engine, func, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from support.asgi import call
from unitwork import AsyncDatabase, Database, DBSessionMiddleware, current_unit

DRIVERS = {
    "asyncpg": "postgresql+asyncpg",
    "psycopg-async": "postgresql+psycopg_async",
    "psycopg": "postgresql+psycopg",
    "asyncmy": "mysql+asyncmy",
    "pymysql": "mysql+pymysql",
}
SYNC = ("psycopg", "pymysql")
ALTER = {
    "postgresql": "ALTER TABLE waiting ALTER COLUMN number SET NOT NULL",
    "mysql": "ALTER TABLE waiting COMMENT = 'altered'",
}


class Base(DeclarativeBase):
    pass


class Waiting(Base):
    __tablename__ = "waiting"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


def outside() -> Any:
    return current_unit().outside("the other service")


WAYS: dict[str, tuple[dict[str, str], Callable[[], Any]]] = {
    "release='statement'": ({"release": "statement"}, nullcontext),
    "outside()": ({}, outside),
    "pinned": ({}, nullcontext),
}


def count(number: int) -> Any:
    return select(func.count()).where(Waiting.number == number)


def application(db: Any, around: Callable[[], Any], wait: float) -> FastAPI:
    async def endpoint(number: int) -> None:
        await db.current.execute(count(number))
        async with around():
            await asyncio.sleep(wait)
        db.current.add(Waiting(number=number))

    def sync_endpoint(number: int) -> None:
        db.current.execute(count(number))
        with around():
            time.sleep(wait)
        db.current.add(Waiting(number=number))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    app.post("/{number}")(endpoint if isinstance(db, AsyncDatabase) else sync_endpoint)
    return app


class Alteration:
    """Alters the table on a connection of its own; how long it has waited for it."""

    def __init__(self, url: str) -> None:
        plain = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
        made = make_url(url)
        self._engine = create_engine(
            made.set(drivername=plain[made.get_backend_name()]),
            isolation_level="AUTOCOMMIT",
        )
        with self._engine.connect() as connection:
            Base.metadata.drop_all(connection)
            Base.metadata.create_all(connection)

    def make(self) -> float:
        with self._engine.connect() as connection:
            began = time.perf_counter()
            connection.exec_driver_sql(ALTER[connection.dialect.name])
            return time.perf_counter() - began

    def dispose(self) -> None:
        self._engine.dispose()


async def measure(
    driver: str, url: str, way: str, requests: int, wait: float, alter: bool
) -> str:
    """Make all *requests* at once, in one *way*."""
    alteration = Alteration(url)
    options, around = WAYS[way]
    level = {"isolation_level": "READ COMMITTED"} if "mysql" in url else {}
    kind: Any = Database if driver in SYNC else AsyncDatabase
    db = kind(url, pool_size=5, max_overflow=0, pool_timeout=30, **options, **level)
    if driver in SYNC:  # each of them waits in a thread
        to_thread.current_default_thread_limiter().total_tokens = requests + 10
    app = application(db, around, wait)
    began, cpu = time.perf_counter(), time.process_time()
    calls = [
        asyncio.create_task(call(app, "POST", f"/{number}"))
        for number in range(requests)
    ]
    waited = ""
    if alter:
        await asyncio.sleep(wait * 0.8)
        seconds = await asyncio.get_running_loop().run_in_executor(
            None, alteration.make
        )
        waited = f", ALTER TABLE within {1000 * seconds:.0f} ms"
    replies = await asyncio.gather(*calls)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    statuses = Counter(reply.status for reply in replies)
    if (result := db.dispose()) is not None:
        await result
    alteration.dispose()
    return f"{seconds:.2f} s (CPU {cpu:.2f}), statuses {dict(statuses)}{waited}"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=1.0)
    parser.add_argument("--pinned", type=int, default=100, help="requests without it")
    parser.add_argument("--alter", action="store_true", help="alter the table, too")
    parser.add_argument("--drivers", nargs="*", default=list(DRIVERS)[:3])
    given = parser.parse_args()
    for driver in given.drivers:
        dialect = DRIVERS[driver]
        name = "MARIADB" if dialect.startswith("mysql") else "POSTGRESQL"
        server = make_url(os.environ[f"UNITWORK_TEST_{name}"]).set(drivername=dialect)
        if name == "MARIADB":
            server = server.set(database="unitwork_waiting")
            maker = create_engine(server.set(drivername="mysql+pymysql", database=""))
            with maker.connect() as connection:
                connection.exec_driver_sql(
                    "CREATE DATABASE IF NOT EXISTS unitwork_waiting"
                )
            maker.dispose()
        url = server.render_as_string(hide_password=False)
        for way in WAYS:
            requests = given.pinned if way == "pinned" else given.requests
            found = await measure(driver, url, way, requests, given.wait, given.alter)
            print(f"{driver}, {way}, {requests} at once: {found}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
