"""Round trips to the database for each request, counted by a proxy in between."""

from typing import Any

from support.proxy import Proxy, RoundTrips

from .asgi import Stage
from .crew import Worker, crew
from .options import Options, database, say
from .registry import CONTESTANTS, DRIVERS, POSTGRESQL
from .workloads import AUTOCOMMIT, WORKLOADS

REQUESTS = 10
WARM_UP = 12
"""psycopg prepares a statement once it has come five times."""


async def measure(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for driver in (driver for driver in POSTGRESQL if driver in options.drivers):
        say(f"round trips, {driver}")
        with database(driver) as url:
            for name in options.contestants:
                if name == "bare" or DRIVERS[driver] not in CONTESTANTS[name].kinds:
                    continue
                proxy, traps = Proxy(url), [RoundTrips() for _ in range(100)]
                proxy.for_newcomers = [*traps]
                async with proxy, crew(options, [name], driver, proxy.url) as workers:
                    for worker in workers.values():
                        for load in [*options.workloads, AUTOCOMMIT]:
                            trips = await counted(worker, load.name, traps)
                            if trips is not None:
                                case = {"driver": driver, "workload": load.name}
                                results.append(
                                    {**case, "contestant": name, "value": trips}
                                )
    return results


async def counted(worker: Worker, load: str, traps: list[Any]) -> float | None:
    """The round trips of a request; `None` if there is no such route."""
    if await worker.call(repeat, load=load, times=WARM_UP) == 404:
        return None
    before = sum(trap.count for trap in traps)
    await worker.call(repeat, load=load, times=REQUESTS)
    return float(sum(trap.count for trap in traps) - before) / REQUESTS


async def repeat(stage: Stage, load: str, times: int) -> int:
    """Make the same request again and again; give 404 if there is no such route."""
    workload = WORKLOADS.get(load, AUTOCOMMIT)
    for _ in range(times):
        exchange = await stage.request(workload)
    return 0 if exchange.status == workload.status else exchange.status
