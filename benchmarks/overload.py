"""Twice as many requests as there are connections for: who holds, who locks up."""

import asyncio
import time
from statistics import quantiles
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from .contestants import Built, Setup
from .crew import Crew, chosen
from .load import GONE, Reply, allow_many_sockets, arriving, closed, request, speed
from .options import Options, database
from .progress import Progress
from .registry import DRIVERS
from .serving import serve

POOL = 5
POOL_TIMEOUT = 2
HELD = 0.04
"""Seconds for which a request holds its connection: the pool shall be what is short."""
TIMES_TOO_MANY = 2
PATIENCE = 10.0
OVERLOADED = ("asyncpg", "psycopg")


async def slow(session: AsyncSession) -> dict[str, str]:
    await session.execute(text(f"SELECT pg_sleep({HELD})"))
    return {"slow": "done"}


def slow_in_thread(session: Session) -> dict[str, str]:
    session.execute(text(f"SELECT pg_sleep({HELD})"))
    return {"slow": "done"}


def add_routes(built: Built, setup: Setup) -> None:
    work = slow if setup.is_async else slow_in_thread
    # With a response model, as most have one: it is checked in a thread, too.
    built.app.add_api_route("/slow", built.wrap(work), response_model=dict[str, str])


async def measure(options: Options) -> dict[str, Any]:
    allow_many_sockets()
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers:
        if driver not in OVERLOADED:
            continue
        who = chosen(options.contestants, DRIVERS[driver], standards_apart=False)
        who = [one for one in who if one.name != "bare"]
        progress = Progress(f"overload, {driver}", len(who))
        with database(driver) as url:
            for contestant in who:
                progress.step(contestant.name)
                pool = {"pool_size": POOL, "max_overflow": 0}
                crew = Crew(
                    [contestant], driver, url, **pool, pool_timeout=POOL_TIMEOUT
                )
                async with crew:
                    missing |= crew.missing
                    for name, worker in crew.workers.items():
                        found = await overload(await worker.call(serve), options)
                        results.append({"driver": driver, "contestant": name, **found})
        progress.end()
    return {"results": results, "missing": missing}


async def overload(port: int, options: Options) -> dict[str, Any]:
    asked = request("GET", "/slow")
    seconds = options.seconds(8.0)
    calm = await closed(port, asked, clients=POOL, seconds=options.seconds(4.0))
    capacity = max(speed(calm, 200), 1.0)
    replies = await arriving(
        port,
        asked,
        rate=capacity * TIMES_TOO_MANY,
        seconds=seconds,
        patience=PATIENCE,
    )
    return {
        "capacity": capacity,
        **told(replies),
        "recovered": await recovered(port, asked),
    }


def good(replies: list[Reply]) -> list[float]:
    return [reply.seconds for reply in replies if reply.status == 200]


def told(replies: list[Reply]) -> dict[str, Any]:
    """What became of the *replies*."""
    accepted = good(replies)
    refused = [reply for reply in replies if reply.status == 503]
    return {
        "arrived": len(replies),
        "accepted": len(accepted),
        "per_second": speed(replies, 200),
        "p99_s": quantiles(accepted, n=100)[98] if len(accepted) > 1 else None,
        "refused": len(refused),
        "refused_within_s": max((reply.seconds for reply in refused), default=None),
        "retry_after": all(reply.retry_after for reply in refused) and bool(refused),
        "unanswered": sum(reply.status == GONE for reply in replies),
        "errors": sum(reply.status not in (200, 503, GONE) for reply in replies),
    }


async def recovered(port: int, asked: bytes) -> float | None:
    """Seconds after the storm until a request is served again; `None`: not in time."""
    start = time.perf_counter()
    while time.perf_counter() - start < PATIENCE:
        replies = await arriving(port, asked, rate=1, seconds=1, patience=PATIENCE)
        if good(replies):
            return time.perf_counter() - start
        await asyncio.sleep(0.2)
    return None
