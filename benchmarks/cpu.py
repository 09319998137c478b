"""CPU time of a request, in one process and without a network."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from itertools import product
from typing import Any

from fastapi import FastAPI

import unitwork

from .asgi import Stage, running
from .contestants import build, nothing
from .crew import correct, crew, crews, in_turns, standard_of
from .numbers import over, ratio, spread
from .options import Options, database, say
from .registry import BEFORE, CONTESTANTS, DRIVERS, POPULAR
from .workloads import WORKLOADS

POOL = 32
CREWS = 3
"""How often the processes are started anew: one process differs from the next."""
CLOSELY = ("limit", "plain", "unitwork", "unitwork_current", "depends")
"""Those that can run in one process."""
Samples = dict[str, list[dict[str, float]]]
Case = tuple[str, str, int]
"""Driver, workload, and how many requests at a time."""


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
    """All contestants, each in a process of its own."""
    rounds, times = options.rounds(12), 1 if options.smallest else CREWS
    found: dict[Case, Samples] = defaultdict(dict)
    async for driver, workers in crews(
        options, leave_out=(), apart=True, times=times, pool_size=POOL
    ):
        for load in options.workloads:
            names = await correct(options, workers, load)
            for at_once in (1, 32):
                asked = {"load": load.name, "at_once": at_once}
                requests = options.some(40) * load.weight
                measured = await in_turns(
                    workers, names, rounds, burst, requests=requests, **asked
                )
                for name, samples in measured.items():
                    into = found[driver, load.name, at_once].setdefault(name, [])
                    into += samples
    return [each for case, samples in found.items() for each in compared(case, samples)]


def compared(case: Case, samples: Samples) -> list[dict[str, Any]]:
    """The results of one case, against the standard in the same rounds."""
    driver, load, at_once = case
    cpu = {name: [each["cpu"] for each in found] for name, found in samples.items()}
    results: list[dict[str, Any]] = []
    for name in (name for name in CONTESTANTS if name in samples):
        limit = cpu[standard_of(name, load)]
        result = {
            **{"driver": driver, "workload": load, "at once": at_once},
            **{"contestant": name, "cpu_us": spread(cpu[name])},
            **{"ratio": ratio(cpu[name], limit), "over_us": over(cpu[name], limit)},
            "failed": sum(each["failed"] for each in samples[name]),
        }
        plain = "plain" if DRIVERS[driver] == "async" else ""
        for key, other in (("now_before", BEFORE.get(name, "")), ("to_plain", plain)):
            if other in cpu:
                result[key] = ratio(cpu[name], cpu[other])
        results.append(result)
    return results


async def closely(options: Options) -> list[dict[str, Any]]:
    """unitwork and the ways by hand, in one process, in turns of some milliseconds.

    What differs from one process to the next, and from one second to the next, is the
    same for all of them.
    """
    results: list[dict[str, Any]] = []
    loads = [n.name for n in options.workloads if n.name in ("read", "write")]
    for driver in (each for each in POPULAR if each in options.drivers):
        names = [name for name in CLOSELY if DRIVERS[driver] in CONTESTANTS[name].kinds]
        rounds = options.rounds(100)
        with database(driver) as url:
            async with crew(options, ["limit"], driver, url, pool_size=POOL) as workers:
                for load, at_once in product(loads, (1, 8, 32)):
                    say(f"side by side, {driver}, {load} x{at_once}")
                    asked = {"load": load, "at_once": at_once, "rounds": rounds}
                    samples = await workers["limit"].call(
                        side_by_side, names=names, **asked
                    )
                    results += compared((driver, load, at_once), samples)
    return results


async def side_by_side(
    stage: Stage, names: list[str], load: str, at_once: int, rounds: int
) -> Samples:
    """Build *names* in this process, and measure them."""
    async with AsyncExitStack() as stack:
        stages: dict[str, Stage] = {}
        for name in names:
            up = running(name, build(name, stage.setup).app, stage.setup)
            stages[name] = await stack.enter_async_context(up)
        return await turns(stages, load, 32, at_once, rounds)


async def turns(
    stages: dict[str, Stage], load: str, requests: int, at_once: int, rounds: int
) -> Samples:
    """What `burst` gives, by name, in each of the *rounds*."""
    samples: Samples = {name: [] for name in stages}
    for each in stages.values():
        await burst(each, load, 64, at_once)  # to warm up
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name in random.sample(list(stages), len(stages)):
            samples[name].append(await burst(stages[name], load, requests, at_once))
    gc.unfreeze()
    return samples


async def without_database(options: Options) -> list[dict[str, Any]]:
    """What the middleware adds to a request that does not use it, in FastAPI.

    Once alone, and once in a process where another route asks for retries.
    """
    driver, found = "aiosqlite", defaultdict[tuple[str, bool], list[float]](list)
    names = [n for n in ("unitwork", "before") if n in options.contestants]
    rounds, times = options.rounds(200), 1 if options.smallest else CREWS
    with database(driver) as url:
        for name, retries, number in product(names, (False, True), range(times)):
            say(f"without a database, {name}, retries: {retries}, {number}")
            async with crew(options, [name], driver, url) as workers:
                found[name, retries] += await workers[name].call(
                    middleware_alone, retries=retries, rounds=rounds
                )
    heads = {False: "alone", True: "beside a route with attempts=3"}
    return [
        {"contestant": name, "case": heads[retries], "value": spread(values)}
        for (name, retries), values in found.items()
    ]


async def middleware_alone(stage: Stage, retries: bool, rounds: int) -> list[float]:
    """Measure one endpoint with and without the middleware; give the differences."""
    apps = {"bare": FastAPI(), "ours": FastAPI()}
    for app in apps.values():
        app.add_api_route("/nothing", nothing)
    db = unitwork.AsyncDatabase(stage.setup.url)
    apps["ours"].add_middleware(unitwork.DBSessionMiddleware, db=db)
    if retries:
        retried = unitwork.transactional(attempts=3)(nothing)
        apps["ours"].add_api_route("/retried", retried)
    stages = {name: stage._replace(app=app, state={}) for name, app in apps.items()}
    samples = await turns(stages, "nothing", 160, 1, rounds)
    rounds_of = zip(samples["ours"], samples["bare"], strict=True)
    return [ours["cpu"] - bare["cpu"] for ours, bare in rounds_of]


CACHED = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
"""What pip installs is compiled already, and so is what runs from src/."""
PARTS = "import sqlalchemy.ext.asyncio, sqlalchemy.orm, anyio"
"""What unitwork needs of others."""
TIMED = (
    "import time; start = time.process_time(); {}; print(time.process_time() - start)"
)


async def imports(options: Options) -> list[dict[str, Any]]:
    """How long an import takes, in a fresh process each time."""
    statements = (PARTS, "import unitwork", "import unitwork.fastapi")
    took: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(options.rounds(30) + 1):  # the first writes the byte code
        for statement in random.sample(statements, len(statements)):
            command = [sys.executable, "-c", TIMED.format(statement)]
            out = subprocess.check_output(command, env=CACHED)  # noqa: ASYNC221
            took[statement].append(float(out) * 1000)
    return [
        {"contestant": statement, "what": what, "value": value}
        for statement, found in took.items()
        for what, value in (
            ("ms", spread(found[1:])),
            ("ratio", ratio(found[1:], took[PARTS][1:])),
        )
    ]
