"""What grows, and how fast: each must cost at most in proportion to its number."""

from contextlib import AsyncExitStack
from functools import cache, partial
from typing import Any

from fastapi import FastAPI

import unitwork

from .contestants import Setup
from .cpu import POOL, burst
from .crew import Worker, crews, in_turns
from .numbers import exponent, spread
from .options import Options
from .worker import Stage
from .workloads import Endpoint, play, read, write

MEASURED = ("limit", "unitwork", "before")
SERIES = {
    "requests at a time": (1, 8, 64, 512),
    "databases that one unit writes to": (1, 2, 3, 4),
    "on_commit hooks": (0, 1, 10, 100, 1_000),
    "savepoints, one in the other": (1, 5, 10, 25, 50),
}
AT_ONCE, DATABASES, HOOKS, SAVEPOINTS = SERIES


async def measure(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    most = 8 if options.length == "smallest" else 64
    async for _, workers in crews(options, ["asyncpg"], MEASURED, pool_size=POOL):
        for series, all_sizes in SERIES.items():
            sizes = all_sizes[:3] if options.length == "smallest" else all_sizes
            costs: dict[str, list[float]] = {name: [] for name in workers}
            for size in sizes:
                case: dict[str, Any] = {"series": series, "size": size}
                call = partial(Worker.call, function=grow, most=most, **case)
                measured = await in_turns(workers, options.rounds(48), call)
                for name, found in measured.items():
                    if any(each["failed"] for each in found):
                        raise RuntimeError(f"{name} failed at {size} {series}")
                    cost = spread([each["cpu"] for each in found])["median"]
                    costs[name].append(cost)
                    results.append({**case, "contestant": name, "value": cost})
            for name, found in costs.items():
                row = {"series": series, "size": "power", "contestant": name}
                results.append({**row, "value": exponent(sizes, found)})
    return results


async def grow(stage: Stage, series: str, size: int, most: int) -> dict[str, float]:
    """Make *most* requests of the series, or fewer long ones; what `burst` gives."""
    requests = max(most // max(size // 8, 1), 8)
    if series == AT_ONCE:
        return await burst(stage, "read", max(requests, size), size)
    app = app_of(stage.name, stage.setup, series, size)
    return await burst(stage._replace(app=app), "read", requests)


@cache
def app_of(name: str, setup: Setup, series: str, size: int) -> FastAPI:
    """An application whose one endpoint does the thing *size* times."""
    app, count = FastAPI(), size if series == DATABASES else 1
    if name == "limit":
        app.add_api_route("/read", by_hand(setup, series, size, count))
    else:
        engines = [setup.engine() for _ in range(count)]
        dbs = [unitwork.AsyncDatabase(e, name=f"db{n}") for n, e in enumerate(engines)]
        app.add_middleware(unitwork.DBSessionMiddleware, db=dbs)
        app.add_api_route("/read", by_unitwork(dbs, series, size))
    return app


async def hook() -> None:
    pass


def by_unitwork(dbs: list[unitwork.AsyncDatabase], series: str, size: int) -> Endpoint:
    async def endpoint() -> object:
        if series == DATABASES:
            return [await play(write, db.current) for db in dbs]
        if series == HOOKS:
            for _ in range(size):
                unitwork.current_unit().on_commit(hook)
            return await play(read, dbs[0].current)
        async with AsyncExitStack() as stack:
            for _ in range(size):
                block = dbs[0].transaction(nested="savepoint")
                session = await stack.enter_async_context(block)
            return await play(read, session)

    return endpoint


def by_hand(setup: Setup, series: str, size: int, count: int) -> Endpoint:
    factories = [setup.factory() for _ in range(count)]
    work = write if series == DATABASES else read

    async def endpoint() -> object:
        async with AsyncExitStack() as stack:
            for factory in factories:
                session = await stack.enter_async_context(factory.begin())
                for _ in range(size if series == SAVEPOINTS else 0):
                    await stack.enter_async_context(session.begin_nested())
                answer = await play(work, session)
        for _ in range(size if series == HOOKS else 0):
            await hook()
        return answer

    return endpoint
