"""The memory of one process over many requests of one application: is it flat?

    python tools/postgres.py -- python -m benchmarks.memory [--requests 200000]

Reads, writes, failures, retries, streams and requests without a database, by turns, in
one process over one engine. After each tenth: the resident set once the C library has
returned what it does not use, and how many objects Python tracks. Needs a PostgreSQL
server: UNITWORK_TEST_POSTGRESQL.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import ctypes.util
import gc
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from support.asgi import call
from unitwork import AsyncDatabase, DBSessionMiddleware, current_unit, transactional

READ = text("SELECT 1")
WRITE = text("UPDATE memory SET n = n + 1 WHERE id = :id")
AT_A_TIME = 8
PATHS = ("/read", "/write", "/refused", "/failed", "/retried", "/stream", "/nothing")


def application(db: AsyncDatabase) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    async def write() -> None:
        await db.current.execute(WRITE, {"id": 1})

    @app.get("/read")
    async def read() -> None:
        await db.current.execute(READ)

    @app.get("/write")
    async def written() -> None:
        await write()
        current_unit().on_commit(int)

    @app.get("/refused")
    async def refused() -> None:
        await write()
        raise HTTPException(409)

    @app.get("/failed")
    async def failed() -> None:
        await db.current.execute(text("SELECT 1/0"))

    @app.get("/retried")
    @transactional(attempts=3)
    async def retried() -> None:
        await write()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            await db.current.execute(READ)
            yield "x"

        return StreamingResponse(body())

    @app.get("/nothing")
    async def nothing() -> None:
        pass

    return app


async def client(app: FastAPI, paths: list[str]) -> None:
    for path in paths:
        with suppress(DBAPIError):  # of `/failed`, as a server gets it
            await call(app, "GET", path)


def measure() -> tuple[float, int]:
    """The resident set in MB, and the number of objects."""
    gc.collect()
    if name := ctypes.util.find_library("c"):
        trim = getattr(ctypes.CDLL(name), "malloc_trim", None)
        if trim is not None:
            trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(gc.get_objects())


async def run(url: str, requests: int) -> None:
    db = AsyncDatabase(url, pool_size=AT_A_TIME, max_overflow=0)
    async with db.engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE IF NOT EXISTS memory (id int, n int)")
        )
        await connection.execute(text("DELETE FROM memory"))
        await connection.execute(text("INSERT INTO memory VALUES (1, 0)"))
    app = application(db)
    each = requests // 10 // AT_A_TIME
    print("| requests | MB | objects |\n|--:|--:|--:|")
    for tenth in range(11):
        megabytes, objects = measure()
        print(
            f"| {tenth * each * AT_A_TIME:,} | {megabytes:.1f} | {objects:,} |",
            flush=True,
        )
        if tenth < 10:
            paths = [PATHS[number % len(PATHS)] for number in range(each)]
            await asyncio.gather(*(client(app, paths) for _ in range(AT_A_TIME)))
    await db.dispose()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--drivers", nargs="*", default=["asyncpg", "psycopg"])
    given = parser.parse_args()
    server = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    for driver in given.drivers:
        url = server.set(drivername=f"postgresql+{driver}")
        print(f"\n{driver}")
        asyncio.run(run(url.render_as_string(hide_password=False), given.requests))


if __name__ == "__main__":
    main()
