"""What it costs to look at 200 open units ten times a second, on PostgreSQL.

    python tools/postgres.py --max_connections=300 -- python -m benchmarks.inspector

All units hold a connection. Prints the CPU time that one look takes (the JSON of the
live view, called as ASGI, without a server), and how much of one core ten a second are;
and what it costs to record a unit: the same request with an inspector and without.
On a busy machine only the best of the rounds means something.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from sqlalchemy import make_url, text

from unitwork import AsyncDatabase, DBSessionMiddleware
from unitwork.inspector import Inspector

UNITS, LOOKS, A_SECOND = 200, 20, 10
REQUESTS, ROUNDS = 100, 20
SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}


async def request(app: Any, path: str) -> int:
    """Make a GET request; give the size of the response."""
    size = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal size
        size += len(message.get("body", b""))

    await app({**SCOPE, "path": path, "state": {}}, receive, send)
    return size


@asynccontextmanager
async def units(db: AsyncDatabase, count: int) -> AsyncIterator[None]:
    """Open so many units, each with a connection, in tasks of their own."""
    ready, leave = asyncio.Semaphore(0), asyncio.Event()

    async def hold() -> None:
        async with db.transaction() as session:
            await session.execute(text("SELECT 1"))
            ready.release()
            await leave.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(count)]
    for _ in tasks:
        await ready.acquire()
    try:
        yield
    finally:
        leave.set()
        await asyncio.gather(*tasks)


async def cpu(work: Callable[[], Awaitable[object]], times: int) -> float:
    """The CPU time of one of so many calls, in seconds."""
    began = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - began) / times


def application(db: AsyncDatabase) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    @app.get("/")
    async def endpoint() -> None:
        await db.current.execute(text("SELECT 1"))

    return app


async def looks(db: AsyncDatabase) -> None:
    async with AsyncExitStack() as stack:
        inspector = Inspector(db)
        stack.callback(inspector.close)
        await stack.enter_async_context(units(db, UNITS))
        size = await request(inspector, "/live.json")
        look = partial(request, inspector, "/live.json")
        taken = [await cpu(look, LOOKS) for _ in range(ROUNDS)]
    median, best = 1e3 * statistics.median(taken), 1e3 * min(taken)
    print(f"{UNITS} open units, {size / 1000:.0f} kB: {median:.2f} ms a look, in the")
    print(f"median; {best:.2f} ms in the best of {ROUNDS} rounds. {A_SECOND} a second")
    print(f"are {best * A_SECOND / 10:.2f} % of a core (bar: 1 %)")


async def recording(db: AsyncDatabase) -> None:
    app, off, on = application(db), [], []
    for _ in range(ROUNDS):
        off.append(await cpu(lambda: request(app, "/"), REQUESTS))
        inspector = Inspector(db)
        on.append(await cpu(lambda: request(app, "/"), REQUESTS))
        inspector.close()
    more, total = 1e6 * (min(on) - min(off)), 1e6 * min(off)
    print(
        f"a request with one statement: {total:.0f} us, and {more:.0f} us to record it"
    )


async def main() -> None:
    url = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    url = url.set(drivername="postgresql+asyncpg")
    db = AsyncDatabase(url, pool_size=UNITS)
    await looks(db)
    await recording(db)
    await db.dispose()


if __name__ == "__main__":
    asyncio.run(main())
