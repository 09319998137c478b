"""Round trips to the database for each request, counted by a proxy in between."""

from typing import Any

from support.proxy import Proxy, RoundTrips

from .asgi import Exchange
from .contestants import Built, Setup
from .crew import Crew, chosen
from .options import Options, database
from .progress import Progress
from .registry import DIALECTS, DRIVERS
from .worker import Stage
from .workloads import WORKLOADS, AsyncWork, SyncWork, Workload

REQUESTS = 10
WARM_UP = 12
"""psycopg prepares a statement once it has come five times."""
AUTOCOMMIT = Workload("autocommit", 'one read, `isolation_level="AUTOCOMMIT"`')
"""Only ours has it: by `@transactional(...)`."""


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers:
        if not DIALECTS[driver].startswith("postgresql"):
            continue
        who = chosen(options.contestants, DRIVERS[driver], standards_apart=False)
        progress = Progress(f"round trips, {driver}", len(who))
        with database(driver) as url:
            for contestant in who:
                progress.step(contestant.name)
                counted = Counted(url)
                async with (
                    counted.proxy as proxy,
                    Crew([contestant], driver, proxy.url) as crew,
                ):
                    missing |= crew.missing
                    for name in crew.workers:
                        found = await counted.trips(crew, name, options)
                        results.append({"driver": driver, **found})
        progress.end()
    return {"results": results, "missing": missing}


def add_routes(built: Built, setup: Setup) -> None:
    if built.autocommit is not None:
        work = AsyncWork if setup.is_async else SyncWork
        built.app.add_api_route(AUTOCOMMIT.path, built.autocommit(work.read))


class Counted:
    """A proxy that counts on each of its lines."""

    def __init__(self, url: str) -> None:
        self.proxy = Proxy(url)
        self._lines = [RoundTrips() for _ in range(100)]
        self.proxy.for_newcomers = [*self._lines]

    @property
    def count(self) -> int:
        return sum(line.count for line in self._lines)

    async def trips(self, crew: Crew, name: str, options: Options) -> dict[str, Any]:
        """The round trips of each workload."""
        worker = crew.workers[name]
        per_request: dict[str, float] = {}
        for workload in [*options.workloads, AUTOCOMMIT]:
            if workload.name in worker.contestant.without:
                continue
            if await worker.call(repeat, workload=workload.name, times=WARM_UP) == 404:
                continue  # there is no such route
            before = self.count
            await worker.call(repeat, workload=workload.name, times=REQUESTS)
            per_request[workload.name] = (self.count - before) / REQUESTS
        return {"contestant": name, "round_trips": per_request}


async def repeat(stage: Stage, workload: str, times: int) -> int:
    """Make the same request over and over; give the status, 404 for an unknown one."""
    asked = WORKLOADS.get(workload, AUTOCOMMIT)
    exchange = Exchange()
    for _ in range(times):
        exchange = await stage.request(asked)
    return 0 if exchange.status == asked.status else exchange.status
