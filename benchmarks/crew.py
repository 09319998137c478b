"""The driver's side of the workers: a process for each contestant, called in turns."""

import asyncio
import json
import os
import random
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .options import Options, database, say
from .registry import (
    BUILD,
    CONTESTANTS,
    DRIVERS,
    ROOT,
    STANDARDS,
    home,
    why_missing,
)
from .worker import check, ready
from .workloads import Workload

Workers = dict[str, "Worker"]


class WorkerError(Exception):
    """What went wrong in a worker."""

    def __str__(self) -> str:
        return str(self.args[0]).strip().splitlines()[-1]


class Worker:
    """A process in which one contestant is up: see `worker.py`."""

    def __init__(self, name: str, process: Process, log: Path) -> None:
        self.name, self._process, self._log = name, process, log

    async def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run *function* in the worker; raises `WorkerError` if it fails there."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        call = json.dumps([function.__module__, function.__name__, arguments])
        stdin.write(call.encode() + b"\n")
        answer = json.loads(await stdout.readline() or "{}")
        if "value" not in answer:
            raise WorkerError(
                answer.get("error") or self._log.read_text() or "it ended"
            )
        return answer["value"]

    async def stop(self) -> None:
        """Let it shut down; end it if that takes too long."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def start(
    options: Options, name: str, driver: str, url: str, engine: dict[str, Any]
) -> Worker:
    """Start a worker; raises `WorkerError` if that contestant cannot run."""
    contestant, _, package = name.partition("@")
    apart = CONTESTANTS[contestant]
    if package:
        apart = apart._replace(package=package, apart=package)
    python = home(apart) / "bin" / "python" if apart.apart else Path(sys.executable)
    if reason := why_missing(apart):
        raise WorkerError(reason)
    if not python.exists():
        raise WorkerError(f"there is no {home(apart).name}; make bench makes it")
    path = os.environ.get("PYTHONPATH", "")
    before = options.before if contestant.startswith("before") else None
    if before:
        path = os.pathsep.join([before, path])
    log = BUILD / "logs" / f"{name}-{driver}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stderr:
        process = await create_subprocess_exec(
            *(str(python), "-m", "benchmarks.worker"),
            *(contestant, driver, url, json.dumps(engine)),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"},
            stdin=PIPE,
            stdout=PIPE,
            stderr=stderr,
            limit=2**24,
        )
    worker = Worker(name, process, log)
    try:
        used = await worker.call(ready)
        if before and not used.startswith(before):
            raise WorkerError(f"it has {used} in place of {before}")
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
                workers[name] = await start(options, name, driver, url, engine)
            except WorkerError as error:
                options.missing[name] = str(error)
        yield workers
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers.values()))


async def crews(
    options: Options,
    drivers: Iterable[str] = DRIVERS,
    *,
    leave_out: Sequence[str] = ("bare",),
    apart: bool = False,
    alone: bool = False,
    times: int = 1,
    **engine: Any,
) -> AsyncIterator[tuple[str, Workers]]:
    """Give a driver, and the workers for it: all together, or each *alone*.

    With *apart*, contestants that need another FastAPI get standards that have it, too.
    """
    for driver in drivers:
        if driver not in options.drivers:
            continue
        names = [
            name
            for name in options.contestants
            if DRIVERS[driver] in CONTESTANTS[name].kinds and name not in leave_out
        ]
        if apart:
            packages = [CONTESTANTS[n].package for n in names if CONTESTANTS[n].apart]
            names += [f"{each}@{package}" for each in STANDARDS for package in packages]
        for some in [[name] for name in names] if alone else [names] * times:
            say(f"{driver}: {', '.join(some)}")
            with database(driver) as url:
                async with crew(options, some, driver, url, **engine) as workers:
                    yield driver, workers


async def in_turns(
    workers: Workers,
    names: Sequence[str],
    rounds: int,
    function: Callable[..., Any],
    **arguments: Any,
) -> dict[str, list[Any]]:
    """Call *function* in each worker, once to warm up and then in each of *rounds*.

    The order is another one in each round: a drift affects all of them alike.
    """
    results: dict[str, list[Any]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name in random.sample(names, len(names)):
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
    package = CONTESTANTS[name].package if CONTESTANTS[name].apart else ""
    return f"{standard}@{package}" if package else standard
