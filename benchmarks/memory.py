"""Memory for each request that is open."""

import asyncio
import gc
import tracemalloc
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from .asgi import Exchange, http
from .contestants import Built, Setup
from .crew import Crew, WorkerError, chosen
from .options import Options, database
from .progress import Progress
from .worker import Stage

DRIVER = "asyncpg"
REQUESTS = 1_000
ROUTES = {"open": "no session", "given": "a session, not used yet"}


class Gate:
    """Where requests wait; knows when all have come that are expected."""

    def __init__(self) -> None:
        self.inside = 0
        self.expected = 0
        self.full = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self.inside += 1
        if self.inside == self.expected:
            self.full.set()
        await self.opened.wait()


gate = Gate()


async def wait() -> dict[str, str]:
    await gate.wait()
    return {}


async def wait_with(session: AsyncSession) -> object:
    return await wait()


def add_routes(built: Built, setup: Setup) -> None:
    if setup.is_async:
        built.app.add_api_route("/open", wait)
        built.app.add_api_route("/given", built.wrap(wait_with))


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    if DRIVER not in options.drivers:
        return {"results": results, "missing": missing}
    who = chosen(options.contestants, "async", standards_apart=False)
    with database(DRIVER) as url:
        pool = {"pool_size": 5, "max_overflow": 0, "pool_timeout": 1}
        async with Crew(who, DRIVER, url, **pool) as crew:
            missing |= crew.missing
            progress = Progress("memory", len(crew.workers))
            for name, worker in crew.workers.items():
                progress.step(name)
                found: dict[str, Any] = {"contestant": name}
                for route in ROUTES:
                    if name == "bare" and route == "given":
                        continue
                    count = options.some(REQUESTS)
                    try:
                        found[route] = await worker.call(hold, route=route, count=count)
                    except WorkerError as error:
                        found[route] = None
                        found["error"] = str(error).strip().splitlines()[-1]
                results.append(found)
            progress.end()
    return {"results": results, "missing": missing}


async def hold(stage: Stage, route: str, count: int) -> float:
    """Bytes for each of *count* open requests. Raises when not all get through."""
    await held(stage, route, 3)  # to warm up
    tracemalloc.start()
    try:
        return await held(stage, route, count) / count
    finally:
        tracemalloc.stop()


async def held(stage: Stage, route: str, count: int) -> int:
    global gate
    gate = Gate()
    gate.expected = count
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    exchanges = [Exchange() for _ in range(count)]
    tasks = [
        asyncio.ensure_future(
            stage.app(http("GET", f"/{route}", stage.state), each.receive, each.send)
        )
        for each in exchanges
    ]
    full = asyncio.ensure_future(gate.full.wait())
    await asyncio.wait([*tasks, full], return_when=asyncio.FIRST_COMPLETED)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    inside = gate.inside
    gate.opened.set()
    full.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if inside < count:
        raise RuntimeError(f"only {inside} of {count} requests could be open at once")
    return after - before
