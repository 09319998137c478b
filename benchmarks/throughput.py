"""Requests a second, and how long the slowest take, through uvicorn."""

import random
from statistics import quantiles
from typing import Any

from .cpu import right, takes_part
from .crew import Crew, chosen, standard_of
from .load import Reply, allow_many_sockets, closed, request, speed
from .numbers import against, column, spread
from .options import Options, database
from .progress import Progress
from .registry import CONTESTANTS, DRIVERS
from .serving import serve
from .workloads import Workload

CLIENTS = 32
POOL = 20
SHOWN = ("per_second", "p50_ms", "p99_ms")
WORKLOADS = ("nothing", "read", "write", "mixed")
DRIVERS_SERVED = ("asyncpg", "psycopg")


async def measure(options: Options) -> dict[str, Any]:
    allow_many_sockets()
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers:
        if driver not in DRIVERS_SERVED:
            continue
        with database(driver) as url:
            who = chosen(options.contestants, DRIVERS[driver])
            async with Crew(who, driver, url, pool_size=POOL) as crew:
                results += await of_driver(crew, driver, options)
                missing |= crew.missing
    return {"results": results, "missing": missing}


async def of_driver(crew: Crew, driver: str, options: Options) -> list[dict[str, Any]]:
    ports = {name: await worker.call(serve) for name, worker in crew.workers.items()}
    loads = [load for load in options.workloads if load.name in WORKLOADS]
    rounds, seconds = options.rounds(4), options.seconds(1.2)
    steps = len(loads) * len(ports) * (rounds + 1)
    progress = Progress(f"throughput, {driver}", steps)
    results: list[dict[str, Any]] = []
    for workload in loads:
        who = [name for name in ports if takes_part(name, workload)]
        who = await right(crew, who, workload)
        asked = request(workload.method, workload.path)
        measured: dict[str, list[dict[str, float]]] = {name: [] for name in who}
        for number in range(rounds + 1):
            for name in random.sample(who, len(who)):
                progress.step(name)
                port = ports[name]
                replies = await closed(port, asked, clients=CLIENTS, seconds=seconds)
                if number:  # the first is to warm up
                    measured[name].append(summed(replies, workload))
        results += compared(driver, workload, measured)
    progress.end()
    return results


def summed(replies: list[Reply], load: Workload) -> dict[str, float]:
    good = [reply.seconds for reply in replies if reply.status == load.status]
    cuts = quantiles(good, n=100) if len(good) > 1 else [float("nan")] * 99
    return {
        "per_second": speed(replies, load.status),
        "p50_ms": cuts[49] * 1000,
        "p99_ms": cuts[98] * 1000,
        "failed": len(replies) - len(good),
    }


def compared(
    driver: str, workload: Workload, measured: dict[str, list[dict[str, float]]]
) -> list[dict[str, Any]]:
    standard = "bare" if workload.name == "nothing" else "limit"
    results: list[dict[str, Any]] = []
    for name in CONTESTANTS:
        if (found := measured.get(name)) is None:
            continue
        limit = measured[standard_of(name, standard)]
        spreads = {key: spread(column(found, key)) for key in SHOWN}
        speeds = column(found, "per_second"), column(limit, "per_second")
        results.append(
            {
                "driver": driver,
                "workload": workload.name,
                "contestant": name,
                **spreads,
                "speed_ratio": against(*speeds),
                "failed": sum(column(found, "failed")),
            }
        )
    return results
