"""CPU time of a request, in one process and without a network: bursts, in turns."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from .crew import Crew, WorkerError, chosen, standard_of
from .numbers import against, column, over, spread
from .options import Options, database
from .progress import Progress
from .registry import CONTESTANTS, DRIVERS
from .worker import Stage, check
from .workloads import WORKLOADS, Workload

REQUESTS = 120
POOL = 32
CONCURRENCY = (1, 32)


async def measure(options: Options) -> dict[str, Any]:
    """Measure all drivers, workloads and concurrencies that are asked for."""
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers:
        with database(driver) as url:
            contestants = chosen(options.contestants, DRIVERS[driver])
            async with Crew(contestants, driver, url, pool_size=POOL) as crew:
                results += await of_driver(crew, driver, options)
                missing |= crew.missing
    return {"results": results, "missing": missing}


async def of_driver(crew: Crew, driver: str, options: Options) -> list[dict[str, Any]]:
    rounds = options.rounds(12)
    plan = [
        (workload, concurrency, who)
        for workload in options.workloads
        for concurrency in CONCURRENCY
        if (who := [name for name in crew.workers if takes_part(name, workload)])
    ]
    steps = sum(len(who) for _, _, who in plan) * (rounds + 1)
    progress = Progress(f"cpu, {driver}", steps)
    results: list[dict[str, Any]] = []
    for workload, concurrency, who in plan:
        who = await right(crew, who, workload)
        asked = {
            "workload": workload.name,
            "requests": options.some(REQUESTS) * workload.weight,
            "concurrency": concurrency,
        }
        await crew.in_turns(who, 1, burst, progress, **asked)  # to warm up
        measured = await crew.in_turns(who, rounds, burst, progress, **asked)
        results += compared(driver, workload, concurrency, measured)
    progress.end()
    return results


def takes_part(name: str, workload: Workload) -> bool:
    return workload.name not in CONTESTANTS[name.partition("@")[0]].without


async def right(crew: Crew, who: list[str], workload: Workload) -> list[str]:
    """Those who give the answer that the workload has; the others are missing."""
    found: list[str] = []
    wanted: Any = None
    for name in who:  # the limit is the first
        try:
            answer = await crew.workers[name].call(check, workload=workload.name)
        except WorkerError as error:
            answer = {"status": str(error).strip().splitlines()[-1]}
        wanted = wanted or answer
        if answer == wanted and answer["status"] == workload.status:
            found.append(name)
        else:
            crew.missing[f"{name} at {workload.name}"] = f"it answered {answer}"
    return found


def compared(
    driver: str,
    workload: Workload,
    concurrency: int,
    measured: dict[str, list[dict[str, float]]],
) -> Iterator[dict[str, Any]]:
    """The results of one workload, against the limit (without a database: bare)."""
    standard = "bare" if workload.name == "nothing" else "limit"
    for name in CONTESTANTS:
        if (results := measured.get(name)) is None:
            continue
        limit = measured[standard_of(name, standard)]
        cpu, wall = column(results, "cpu"), column(results, "wall")
        yield {
            "driver": driver,
            "workload": workload.name,
            "concurrency": concurrency,
            "contestant": name,
            "cpu_us": spread(cpu),
            "wall_us": spread(wall),
            "cpu_ratio": against(cpu, column(limit, "cpu")),
            "wall_ratio": against(wall, column(limit, "wall")),
            "cpu_over_us": over(cpu, column(limit, "cpu")),
            "failed": sum(column(results, "failed")),
        }


async def burst(
    stage: Stage, workload: str, requests: int, concurrency: int
) -> dict[str, float]:
    """Make *requests*; give microseconds of each, CPU and wall, and how many failed."""
    asked = WORKLOADS[workload]
    failed = 0
    left = iter(range(requests))

    async def client() -> None:
        nonlocal failed
        for _ in left:
            try:
                exchange = await stage.request(asked)
                failed += exchange.status != asked.status
            except Exception:
                failed += 1

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    each = 1e6 / requests
    return {"cpu": cpu * each, "wall": wall * each, "failed": failed}
