"""What can be counted, where times are not exact: function calls, and round trips."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from types import CodeType, MethodType
from typing import Any

from support.proxy import RoundTrips

from .contestants import AUTOCOMMIT, IN_TRANSACTIONS
from .crew import crews
from .options import DIALECTS, Options
from .worker import Stage
from .workloads import WORKLOADS

REQUESTS = 20
OWNERS = {
    "unitwork itself": ("unitwork",),
    "SQLAlchemy": ("sqlalchemy",),
    "FastAPI, Starlette": ("fastapi", "starlette"),
    "asyncio, anyio, threads": ("asyncio", "anyio", "threading", "concurrent"),
    "others": (),
}
AVAILABLE = sys.version_info >= (3, 12)
"""Whether Python can count in all threads: by `sys.monitoring`."""


async def calls(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    async for driver, workers in crews(options, DIALECTS):
        for name, worker in workers.items() if AVAILABLE else ():
            counted = await worker.call(count)
            results += [
                {"driver": driver, "contestant": name, "of": of, "value": round(calls)}
                for of, calls in {"all": sum(counted.values()), **counted}.items()
            ]
    return results


async def count(stage: Stage) -> dict[str, float]:
    """The calls of one read."""

    async def request() -> None:
        await stage.request(WORKLOADS["read"])

    return await calls_of(request)


async def calls_of(request: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """The calls of one *request*, C functions included, by whose code they are in."""
    counted: Counter[str] = Counter()

    def started(code: CodeType, offset: int) -> None:
        counted[owner(code.co_filename)] += 1

    def called(code: CodeType, offset: int, function: object, first: object) -> None:
        if not hasattr(function, "__code__") and not isinstance(function, MethodType):
            counted[owner(code.co_filename)] += 1

    monitoring: Any = vars(sys)["monitoring"]
    tool, events = monitoring.PROFILER_ID, monitoring.events
    monitoring.use_tool_id(tool, "unitwork benchmarks")
    monitoring.register_callback(tool, events.PY_START, started)
    monitoring.register_callback(tool, events.CALL, called)
    try:
        for active in (0, events.PY_START | events.CALL):  # first to warm up
            monitoring.set_events(tool, active)
            for _ in range(REQUESTS):
                await request()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    return {name: counted[name] / REQUESTS for name in OWNERS}


@cache
def owner(filename: str) -> str:
    """Whose code is in the file, by the innermost folder that is known."""
    for part in reversed(filename.removesuffix(".py").split("/")):
        for name, packages in OWNERS.items():
            if part in packages:
                return name
    return "others"


WARM_UP = 12  # psycopg prepares a statement once it has come five times


async def round_trips(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    among = [*IN_TRANSACTIONS, AUTOCOMMIT]
    traps = [RoundTrips() for _ in range(1_000)]
    async for driver, workers in crews(
        options, DIALECTS, among, alone=True, traps=traps
    ):
        for name, worker in workers.items():
            for load in options.workloads:
                await worker.call(repeat, load=load.name, times=WARM_UP)
                before = sum(trap.count for trap in traps)
                await worker.call(repeat, load=load.name, times=REQUESTS)
                trips = (sum(trap.count for trap in traps) - before) / REQUESTS
                case = {"driver": driver, "workload": load.name}
                results.append({**case, "contestant": name, "value": trips})
    return results


async def repeat(stage: Stage, load: str, times: int) -> None:
    """Make the same request again and again."""
    for _ in range(times):
        exchange = await stage.request(WORKLOADS[load])
        if exchange.status != WORKLOADS[load].status:
            raise RuntimeError(f"it answered {exchange.status}")
