"""Function calls of a request, by whose code makes them: exact, where times are not."""

import sys
from collections import Counter
from functools import cache
from types import CodeType, MethodType
from typing import Any

from .crew import Crew, chosen
from .options import Options, database
from .progress import Progress
from .registry import DRIVERS
from .worker import Stage
from .workloads import WORKLOADS

WORKLOAD = WORKLOADS["read"]
WARM_UP, REQUESTS = 20, 20
OWNERS = (
    ("unitwork", ("unitwork",)),
    ("SQLAlchemy", ("sqlalchemy",)),
    ("FastAPI, Starlette", ("fastapi", "starlette")),
    ("asyncio, anyio, threads", ("asyncio", "anyio", "threading", "concurrent")),
)
OTHERS = "others"
AVAILABLE = sys.version_info >= (3, 12)
"""Whether Python can count all threads: by `sys.monitoring`."""


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers if AVAILABLE else ():
        who = chosen(options.contestants, DRIVERS[driver], standards_apart=False)
        who = [one for one in who if one.name != "bare"]
        with database(driver) as url:
            async with Crew(who, driver, url) as crew:
                missing |= crew.missing
                progress = Progress(f"calls, {driver}", len(crew.workers))
                for name, worker in crew.workers.items():
                    progress.step(name)
                    found = {"driver": driver, "contestant": name}
                    results.append({**found, "calls": await worker.call(count)})
                progress.end()
    return {"results": results, "missing": missing}


async def count(stage: Stage) -> dict[str, float]:
    """The calls of one request, C functions included, by whose code they are in."""
    for _ in range(WARM_UP):
        await stage.request(WORKLOAD)
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
    monitoring.set_events(tool, events.PY_START | events.CALL)
    try:
        for _ in range(REQUESTS):
            await stage.request(WORKLOAD)
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)
    names = [name for name, _ in OWNERS] + [OTHERS]
    return {name: counted[name] / REQUESTS for name in names}


@cache
def owner(filename: str) -> str:
    """Whose code is in the file: the last folder that is somebody's tells."""
    parts = filename.removesuffix(".py").split("/")
    for part in reversed(parts):
        for name, packages in OWNERS:
            if part in packages:
                return name
    return OTHERS
