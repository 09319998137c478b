"""CPU time of a request, in one process and without a network."""

import asyncio
import gc
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from operator import sub, truediv
from typing import Any

from fastapi import FastAPI

import unitwork

from .contestants import BEFORE, CONTESTANTS, IN_TRANSACTIONS, nothing
from .crew import Worker, crews, in_turns, playing, standard_of
from .numbers import spread
from .options import DIALECTS, Options
from .worker import Stage
from .workloads import WORKLOADS

POOL = 32
CREWS = 3  # sets of processes: one process differs from the next
Samples = dict[str, list[dict[str, float]]]


async def burst(
    stage: Stage, load: str, requests: int, at_once: int = 1
) -> dict[str, float]:
    """Make *requests*; give the microseconds of CPU for each, and how many failed."""
    workload, failed, left = WORKLOADS[load], 0, iter(range(requests))

    async def client() -> None:
        nonlocal failed
        for _ in left:
            try:
                exchange = await stage.request(workload)
                failed += exchange.status != workload.status
            except Exception:
                failed += 1

    start = time.process_time()
    await asyncio.gather(*(client() for _ in range(at_once)))
    cpu = time.process_time() - start
    return {"cpu": cpu * 1e6 / requests, "failed": failed}


async def measure(options: Options) -> list[dict[str, Any]]:
    """All contestants, each in a process of its own, in turns."""
    found: dict[tuple[str, str, int], Samples] = defaultdict(lambda: defaultdict(list))
    times = options.rounds(CREWS)
    async for driver, workers in crews(
        options, DIALECTS, [*IN_TRANSACTIONS, "bare"], times=times, pool_size=POOL
    ):
        for load in options.workloads:
            for at_once in (1, 8, 32):
                requests = max(20 if load.work else 160, 2 * at_once)
                call = partial(Worker.call, function=burst, load=load.name)
                measured = await in_turns(
                    playing(workers, load),
                    options.rounds(24),
                    partial(call, requests=requests, at_once=at_once),
                )
                for name, samples in measured.items():
                    found[driver, load.name, at_once][name] += samples
    results: list[dict[str, Any]] = []
    for (driver, workload, at_once), samples_of in found.items():
        case = {"driver": driver, "workload": workload, "at once": at_once}
        for name, samples in [*samples_of.items()]:
            if failed := sum(each["failed"] for each in samples):
                options.missing[f"{name}, {case}"] = f"{failed:.0f} requests failed"
                del samples_of[name]
        results += [{**case, **each} for each in compared(workload, samples_of)]
    return results


def compared(workload: str, samples_of: Samples) -> Iterator[dict[str, Any]]:
    """Each contestant against the standard, and unitwork against an earlier one."""
    cpu = {name: [s["cpu"] for s in each] for name, each in samples_of.items()}
    standard, to = cpu[standard_of(workload)], sub if workload == "nothing" else truediv
    for name in (name for name in CONTESTANTS if name in cpu):
        found = {"value": spread(cpu[name], standard, to), "us": spread(cpu[name])}
        if "plain" in cpu:
            found["plain"] = spread(cpu[name], cpu["plain"])
        yield {"contestant": name, **found}
    for now, before in BEFORE.items():
        if before in cpu and now in cpu:
            title = f"now / before: {CONTESTANTS[now].title}"
            yield {"contestant": title, "value": spread(cpu[now], cpu[before])}


async def without_database(options: Options) -> list[dict[str, Any]]:
    """What the middleware adds to a request that does not use it, in FastAPI."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    async for _, workers in crews(
        options, ["asyncpg"], ("unitwork", "before"), times=options.rounds(CREWS)
    ):
        for retries, case in enumerate(("alone", "beside a route with attempts=3")):
            for name, worker in workers.items():
                bare, over = await worker.call(
                    middleware_alone, retries=bool(retries), rounds=options.rounds(600)
                )
                found["bare", case] += bare
                found[name, case] += over
    return [
        {"contestant": name, "case": case, "value": spread(values)}
        for (name, case), values in found.items()
    ]


async def middleware_alone(
    stage: Stage, retries: bool, rounds: int
) -> tuple[list[float], list[float]]:
    """What an endpoint takes, and what the middleware adds, in turns in one process."""
    bare, ours = apps = FastAPI(), FastAPI()
    for app in apps:
        app.add_api_route("/nothing", nothing)
    db = unitwork.AsyncDatabase(stage.setup.url)
    ours.add_middleware(unitwork.DBSessionMiddleware, db=db)
    if retries:
        ours.add_api_route("/retried", unitwork.transactional(attempts=3)(nothing))
    cpu: dict[FastAPI, list[float]] = {bare: [], ours: []}
    gc.freeze()
    for number in range(-10, rounds):
        for app in random.sample(apps, 2):
            found = await burst(stage._replace(app=app, state={}), "nothing", 40)
            cpu[app] += [found["cpu"]] * (number >= 0)  # those before are to warm up
    pairs = zip(cpu[ours], cpu[bare], strict=True)
    return cpu[bare], [one - other for one, other in pairs]
