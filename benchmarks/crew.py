"""The driver's side of the workers: a process for each contestant, called in turns."""

import asyncio
import json
import os
import random
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from support.proxy import Proxy

from .options import Options, database, say
from .registry import CONTESTANTS, DRIVERS, ROOT, STANDARDS, home
from .worker import check, ready
from .workloads import Workload

Workers = dict[str, "Worker"]


class WorkerError(Exception):
    """What went wrong in a worker: the last line of the traceback."""

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback.strip().splitlines()[-1])


class Worker:
    """A process in which one contestant is up: see `worker.py`."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    async def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run *function* in the worker; raises `WorkerError` if it fails there."""
        call = json.dumps([function.__module__, function.__name__, arguments])
        self._stdin.write(call.encode() + b"\n")
        answer = json.loads(await self._stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["value"]

    async def stop(self) -> None:
        """Let it shut down; end it if that takes too long."""
        self._stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(options: Options, name: str, *arguments: str) -> Worker:
    """Start a worker; raises `WorkerError` if that contestant cannot run.

    *name* is that of a contestant, with "@" and a package if it runs in its venv.
    """
    name, _, package = name.partition("@")
    apart = package or (CONTESTANTS[name].package if CONTESTANTS[name].apart else "")
    python = f"{home(apart)}/bin/python" if apart else sys.executable
    path = os.environ.get("PYTHONPATH", "")
    before = options.before if name.startswith("before") else None
    process = await create_subprocess_exec(
        *(python, "-m", "benchmarks.worker", name, *arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{before}:{path}" if before else path},
        stdin=PIPE,
        stdout=PIPE,
        limit=2**24,
    )
    worker = Worker(process)
    try:
        used = await worker.call(ready)
        if before and not used.startswith(before):
            raise WorkerError(f"it uses {used} in place of {before}")
    except WorkerError:
        await worker.stop()
        raise
    return worker


@asynccontextmanager
async def crew(
    options: Options, names: Iterable[str], driver: str, url: str, **engine: Any
) -> AsyncIterator[Workers]:
    """Give a worker for each of *names* that can run; say why others are missing."""
    workers: Workers = {}
    try:
        for name in names:
            try:
                workers[name] = await start(
                    options, name, driver, url, json.dumps(engine)
                )
            except (OSError, WorkerError) as error:
                options.missing[name] = str(error)
        yield workers
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers.values()))


async def crews(
    options: Options,
    drivers: Iterable[str] = DRIVERS,
    *,
    without: Sequence[str] = ("bare",),
    apart: bool = False,
    alone: bool = False,
    times: int = 1,
    traps: Sequence[Any] | None = None,
    **engine: Any,
) -> AsyncIterator[tuple[str, Workers]]:
    """Give a driver, and the workers for it: all together, or each *alone*.

    With *apart*, contestants that need another FastAPI get standards that have it, too.
    With *traps*, they reach the database through a proxy, which shows them what passes.
    """
    for driver in (driver for driver in drivers if driver in options.drivers):
        known = {n for n, each in CONTESTANTS.items() if DRIVERS[driver] in each.kinds}
        names = [n for n in options.contestants if n in known and n not in without]
        if apart:
            packages = [CONTESTANTS[n].package for n in names if CONTESTANTS[n].apart]
            names += [f"{each}@{package}" for each in STANDARDS for package in packages]
        for some in [[name] for name in names] if alone else [names] * times:
            say(f"{driver}: {', '.join(some)}")
            with database(driver) as url:
                async with AsyncExitStack() as stack:
                    if traps is not None:
                        proxy = await stack.enter_async_context(Proxy(url))
                        proxy.for_newcomers, url = [*traps], proxy.url
                    up = crew(options, some, driver, url, **engine)
                    yield driver, await stack.enter_async_context(up)


async def in_turns(
    workers: Workers,
    names: Iterable[str],
    rounds: int,
    function: Callable[..., Any],
    **arguments: Any,
) -> dict[str, list[Any]]:
    """Call *function* in each worker, once to warm up and then in each of *rounds*.

    The order is another one in each round: a drift affects all of them alike.
    """
    results: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name in random.sample([*results], len(results)):
            results[name].append(await workers[name].call(function, **arguments))
    return {name: found[1:] for name, found in results.items()}


async def correct(options: Options, workers: Workers, load: Workload) -> list[str]:
    """Those whose answer is the limit's; the others are missing."""
    found: list[str] = []
    wanted: Any = None
    for name, worker in workers.items():  # the limit is the first
        if load.work is not None and name.startswith("bare"):
            continue
        try:
            answer = await worker.call(check, load=load.name)
        except WorkerError as error:
            answer = [0, str(error)]
        wanted = wanted or answer
        if answer == wanted and answer[0] == load.status:
            found.append(name)
        else:
            options.missing[f"{name} at {load.name}"] = f"it answered {answer}"
    return found


def standard_of(name: str, load: str) -> str:
    """The worker to measure *name* against: it has the same FastAPI."""
    standard = "bare" if load == "nothing" else "limit"
    contestant = CONTESTANTS[name]
    return f"{standard}@{contestant.package}" if contestant.apart else standard
