"""What grows, and how fast: each must cost at most in proportion to its number."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import cache, partial
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

import unitwork

from .contestants import Setup
from .cpu import POOL, burst
from .crew import Crew, chosen
from .numbers import column, spread
from .options import Options, database
from .progress import Progress
from .worker import Stage
from .workloads import WORKLOADS, AsyncWork

DRIVER = "asyncpg"
REQUESTS = 512
ROUNDS = 12
SERIES: dict[str, tuple[str, Sequence[int]]] = {
    "concurrency": ("requests at a time", (1, 8, 64, 512)),
    "databases": ("databases that one unit writes to", (1, 2, 3, 4)),
    "hooks": ("on_commit hooks", (0, 1, 10, 100, 1_000)),
    "threads": ("on_commit hooks that are no coroutines", (0, 1, 10, 100, 1_000)),
    "savepoints": ("savepoints, one in the other", (1, 5, 10, 25, 50)),
    "joined": ("joined blocks, one in the other", (1, 5, 10, 25, 50)),
}
Endpoint = Callable[..., Any]


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    if DRIVER not in options.drivers:
        return {"results": results, "missing": missing}
    plan = [
        (series, size)
        for series, (_, sizes) in SERIES.items()
        for size in (sizes[:3] if options.smallest else sizes)
    ]
    who = chosen(["limit", "unitwork"], "async")
    progress = Progress("scaling", len(plan) * len(who) * (options.rounds(ROUNDS) + 1))
    with database(DRIVER) as url:
        async with Crew(who, DRIVER, url, pool_size=POOL) as crew:
            missing |= crew.missing
            for series, size in plan:
                results += await grown(crew, series, size, options, progress)
    progress.end()
    return {"results": results, "missing": missing}


async def grown(
    crew: Crew, series: str, size: int, options: Options, progress: Progress
) -> list[dict[str, Any]]:
    """What each of the crew takes for a request of this *size*."""
    requests = options.some(max(REQUESTS // max(size // 8, 1), 8))
    if series == "concurrency":
        requests = max(options.some(REQUESTS), size)
    asked = {"series": series, "size": size}
    rounds = options.rounds(ROUNDS) + 1  # the first is to warm up
    measured = await crew.in_turns(
        list(crew.workers), rounds, grow, progress, requests=requests, **asked
    )
    return [
        {
            **asked,
            "contestant": name,
            "cpu_us": spread(column(found[1:], "cpu")),
            "failed": sum(column(found, "failed")),
        }
        for name, found in measured.items()
    ]


async def grow(stage: Stage, series: str, size: int, requests: int) -> dict[str, float]:
    """Make *requests* of the series, one at a time; what `burst` gives."""
    if series == "concurrency":
        return await burst(stage, "read", requests, size)
    made = app_of(stage.name, stage.setup, series, size)
    return await burst(stage._replace(app=made), "read", requests, 1)


@cache
def app_of(name: str, setup: Setup, series: str, size: int) -> FastAPI:
    """An application whose one endpoint does the thing *size* times."""
    app = FastAPI()
    makers = UNITWORK if name == "unitwork" else LIMIT
    path = WORKLOADS["read"].path
    app.add_api_route(path, makers[series](app, setup, size))
    return app


def unitwork_databases(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    databases = [
        unitwork.AsyncDatabase(setup.async_engine, name=f"db{number}")
        for number in range(size)
    ]
    app.add_middleware(unitwork.DBSessionMiddleware, db=databases)

    async def endpoint() -> dict[str, str]:
        for db in databases:
            await AsyncWork.write(db.current)
        return {}

    return endpoint


def unitwork_database(app: FastAPI, setup: Setup) -> unitwork.AsyncDatabase:
    db = unitwork.AsyncDatabase(setup.async_engine)
    app.add_middleware(unitwork.DBSessionMiddleware, db=db)
    return db


async def nothing() -> None:
    pass


def nothing_in_thread() -> None:
    pass


def unitwork_hooks(
    app: FastAPI, setup: Setup, size: int, hook: Endpoint = nothing
) -> Endpoint:
    db = unitwork_database(app, setup)

    async def endpoint() -> object:
        unit = unitwork.current_unit()
        for _ in range(size):
            unit.on_commit(hook)
        return await AsyncWork.read(db.current)

    return endpoint


def unitwork_savepoints(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    db = unitwork_database(app, setup)

    async def endpoint() -> object:
        async with AsyncExitStack() as blocks:
            for _ in range(size):
                block = db.transaction(nested="savepoint")
                session = await blocks.enter_async_context(block)
            return await AsyncWork.read(session)

    return endpoint


def unitwork_joined(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    db = unitwork_database(app, setup)

    async def endpoint() -> object:
        async with AsyncExitStack() as blocks:
            for _ in range(size):
                block = db.transaction(nested="join")
                session = await blocks.enter_async_context(block)
            return await AsyncWork.read(session)

    return endpoint


def limit_databases(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    factories = [setup.async_factory for _ in range(size)]

    async def endpoint() -> dict[str, str]:
        async with AsyncExitStack() as blocks:
            for factory in factories:
                await AsyncWork.write(await blocks.enter_async_context(factory.begin()))
        return {}

    return endpoint


def limit_hooks(
    app: FastAPI, setup: Setup, size: int, hook: Endpoint = nothing
) -> Endpoint:
    factory = setup.async_factory

    async def endpoint() -> object:
        async with factory.begin() as session:
            answer = await AsyncWork.read(session)
        for _ in range(size):
            if hook is nothing:
                await hook()
            else:
                await run_in_threadpool(hook)
        return answer

    return endpoint


def limit_savepoints(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    factory = setup.async_factory

    async def endpoint() -> object:
        async with factory.begin() as session, AsyncExitStack() as blocks:
            for _ in range(size):
                await blocks.enter_async_context(session.begin_nested())
            return await AsyncWork.read(session)

    return endpoint


def limit_joined(app: FastAPI, setup: Setup, size: int) -> Endpoint:
    factory = setup.async_factory

    async def endpoint() -> object:
        async with factory.begin() as session:  # it has nothing of the kind
            return await AsyncWork.read(session)

    return endpoint


Maker = Callable[[FastAPI, Setup, int], Endpoint]
UNITWORK: dict[str, Maker] = {
    "databases": unitwork_databases,
    "hooks": unitwork_hooks,
    "threads": partial(unitwork_hooks, hook=nothing_in_thread),
    "savepoints": unitwork_savepoints,
    "joined": unitwork_joined,
}
LIMIT: dict[str, Maker] = {
    "databases": limit_databases,
    "hooks": limit_hooks,
    "threads": partial(limit_hooks, hook=nothing_in_thread),
    "savepoints": limit_savepoints,
    "joined": limit_joined,
}
