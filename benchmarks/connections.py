"""A small pool under requests that wait: pinned connections, and released ones.

    python tools/postgres.py -- python -m benchmarks.connections [--requests 1000]

Each request reads a row, waits as if for another service, and writes. The pool has five
connections. Needs a PostgreSQL server: UNITWORK_TEST_POSTGRESQL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from fastapi import FastAPI
from sqlalchemy import make_url, text

from support.asgi import call
from unitwork import AsyncDatabase, DBSessionMiddleware, current_unit

READ = text("SELECT count(*) FROM waiting WHERE number = :number")
WRITE = text("INSERT INTO waiting VALUES (:number)")
TABLE = "CREATE TABLE IF NOT EXISTS waiting (number int PRIMARY KEY)"

Around = Callable[[], AbstractAsyncContextManager[None]]


def outside() -> AbstractAsyncContextManager[None]:
    return current_unit().outside("the other service")


async def measure(url: str, around: Around, requests: int, wait: float) -> str:
    """Make all *requests* at once; *around* is entered for the wait of each."""
    db = AsyncDatabase(url, pool_size=5, max_overflow=0, pool_timeout=30)
    async with db.engine.begin() as connection:
        await connection.exec_driver_sql(TABLE)
        await connection.exec_driver_sql("TRUNCATE waiting")

    async def endpoint(number: int) -> None:
        await db.current.execute(READ, {"number": number})
        async with around():
            await asyncio.sleep(wait)
        await db.current.execute(WRITE, {"number": number})

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    app.post("/{number}")(endpoint)
    began, cpu = time.perf_counter(), time.process_time()
    calls = (call(app, "POST", f"/{number}") for number in range(requests))
    replies = await asyncio.gather(*calls)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    statuses = Counter(reply.status for reply in replies)
    await db.dispose()
    return f"{seconds:.2f} s (CPU {cpu:.2f}), statuses {dict(statuses)}"


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--wait", type=float, default=1.0)
    parser.add_argument("--pinned", type=int, default=100, help="requests without it")
    parser.add_argument("--drivers", nargs="*", default=["asyncpg", "psycopg"])
    given = parser.parse_args()
    server = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    for driver in given.drivers:
        url = server.set(drivername=f"postgresql+{driver}")
        text_url = url.render_as_string(hide_password=False)
        for name, around, requests in (
            ("outside()", outside, given.requests),
            ("pinned", nullcontext, given.pinned),
        ):
            found = await measure(text_url, around, requests, given.wait)
            print(f"{driver}, {name}, {requests} requests at once: {found}")


if __name__ == "__main__":
    asyncio.run(main())
