"""CPU time once more, for the bars: all in one process, by turns of some milliseconds.

What differs from one process to the next, and from one second to the next, is the same
for all then. Only for what can be together in a process: unitwork, and ways by hand.
"""

import gc
import random
import time
from contextlib import AsyncExitStack
from typing import Any

from . import workloads
from .asgi import running
from .contestants import build
from .crew import Crew
from .numbers import against, over, spread
from .options import Options, database
from .progress import Progress
from .registry import CONTESTANTS, DRIVERS
from .worker import Stage
from .workloads import WORKLOADS

NAMES = ("limit", "bare", "unitwork", "unitwork_current", "depends", "depends_function")
LOADS = ("nothing", "read", "write", "mixed")
MEASURED = ("asyncpg", "psycopg")
REQUESTS, WARM_UP, ROUNDS = 20, 50, 200


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    loads = [load.name for load in options.workloads if load.name in LOADS]
    for driver in (each for each in options.drivers if each in MEASURED):
        names = [name for name in NAMES if DRIVERS[driver] in CONTESTANTS[name].kinds]
        progress = Progress(f"closely, {driver}", len(loads))
        with database(driver) as url:
            async with Crew([CONTESTANTS["limit"]], driver, url) as crew:
                missing |= crew.missing
                for load in loads:
                    progress.step(load)
                    standard = "bare" if load == "nothing" else "limit"
                    who = [name for name in names if load not in without(name)]
                    cpu = await crew.workers["limit"].call(
                        compare, names=who, load=load, rounds=options.rounds(ROUNDS)
                    )
                    results += [
                        {
                            "driver": driver,
                            "workload": load,
                            "contestant": name,
                            "cpu_us": spread(cpu[name]),
                            "cpu_ratio": against(cpu[name], cpu[standard]),
                            "cpu_over_us": over(cpu[name], cpu[standard]),
                        }
                        for name in who
                    ]
        progress.end()
    return {"results": results, "missing": missing}


def without(name: str) -> tuple[str, ...]:
    return CONTESTANTS[name].without


async def compare(
    stage: Stage, names: list[str], load: str, rounds: int
) -> dict[str, list[float]]:
    """Microseconds of CPU for a request, of each of *names* in each of the *rounds*."""
    workload = WORKLOADS[load]
    cpu: dict[str, list[float]] = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        stages = {name: await enter(stack, stage, name) for name in names}

        async def request(name: str, times: int) -> None:
            for _ in range(times):
                exchange = await stages[name].request(workload)
                if exchange.status != workload.status:
                    raise RuntimeError(f"{name} answered {exchange.status}")

        for name in names:
            await request(name, WARM_UP)
        gc.collect()
        gc.freeze()
        requests = REQUESTS * workload.weight
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                start = time.process_time()
                await request(name, requests)
                cpu[name].append((time.process_time() - start) * 1e6 / requests)
        gc.unfreeze()
    return cpu


async def enter(stack: AsyncExitStack, stage: Stage, name: str) -> Stage:
    """Start the contestant *name* up beside the one whose process it is."""
    setup = stage.setup
    built = build(name, setup)
    workloads.add_routes(built.app, built.wrap, is_async=setup.is_async)
    state = await stack.enter_async_context(running(built.app))
    return Stage(name, built.app, state, setup)
