"""The driver's side: workers, asked one after the other, in turns."""

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from .progress import Progress
from .registry import (
    CONTESTANTS,
    ROOT,
    STANDARDS,
    Contestant,
    home,
    why_missing,
)

LOGS = ROOT / "build" / "benchmarks" / "logs"


class WorkerError(Exception):
    """What went wrong in a worker, in its own words."""


class Worker:
    """A process in which one contestant is up: see `worker.py`."""

    def __init__(
        self, contestant: Contestant, driver: str, url: str, options: dict[str, Any]
    ) -> None:
        self.name = key(contestant)
        self.contestant = contestant
        self._arguments = (contestant.name, driver, url, json.dumps(options))
        self._log = LOGS / f"{self.name}-{driver}.log"
        self._process: Process | None = None

    async def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._process = await create_subprocess_exec(
                *(str(python_of(self.contestant)), "-m", "benchmarks.worker"),
                *self._arguments,
                cwd=ROOT,
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                limit=2**24,
            )

    async def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run *function* in the worker; raises `WorkerError` if it fails there."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        module = function.__module__.rpartition(".")[2]
        name = f"{module}.{function.__name__}"
        call = json.dumps({"function": name, "arguments": arguments})
        process.stdin.write(call.encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            lines = self._log.read_text().strip().splitlines()
            raise WorkerError(lines[-1] if lines else "it ended without a word")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["value"]

    async def stop(self) -> None:
        """Let it shut down; end it if that takes too long."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Crew:
    """`async with Crew(...) as crew:` has a worker for each contestant that can run."""

    def __init__(
        self,
        contestants: Iterable[Contestant],
        driver: str,
        url: str,
        **options: Any,
    ) -> None:
        self._all = [Worker(each, driver, url, options) for each in contestants]
        self.workers: dict[str, Worker] = {}
        self.missing: dict[str, str] = {}
        """Why a contestant does not take part."""

    async def __aenter__(self) -> Self:
        for worker in self._all:
            name = worker.name
            if (reason := absent(worker.contestant)) is not None:
                self.missing[name] = reason
                continue
            try:
                await worker.start()
                await worker.call(ready)
                self.workers[name] = worker
            except WorkerError as error:
                self.missing[name] = str(error).strip().splitlines()[-1]
                await worker.stop()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._all))

    async def in_turns(
        self,
        names: Sequence[str],
        rounds: int,
        function: Callable[..., Any],
        progress: Progress,
        **arguments: Any,
    ) -> dict[str, list[Any]]:
        """Call *function* in each worker, *rounds* times; give the results by name.

        The order is another one in each round. What drifts, drifts for everybody.
        """
        results: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in random.sample(names, len(names)):
                progress.step(name)
                result = await self.workers[name].call(function, **arguments)
                results[name].append(result)
        return results


def key(contestant: Contestant) -> str:
    """The name of its worker. A standard may have several, in several venvs."""
    if contestant.apart and contestant.name in STANDARDS:
        return f"{contestant.name}@{contestant.package}"
    return contestant.name


def standard_of(name: str, standard: str) -> str:
    """The worker of *standard* in the venv of *name*."""
    contestant = CONTESTANTS[name]
    return f"{standard}@{contestant.package}" if contestant.apart else standard


async def ready(stage: object) -> bool:
    """Answer as soon as the contestant is up."""
    return True


def python_of(contestant: Contestant) -> Path:
    if contestant.apart:
        return home(contestant) / "bin" / "python"
    return Path(sys.executable)


def absent(contestant: Contestant) -> str | None:
    """Why *contestant* has no Python to run in; `None` if it has."""
    if (reason := why_missing(contestant)) or python_of(contestant).exists():
        return reason
    return f"there is no {home(contestant).name}; make bench makes it"


def chosen(
    names: Iterable[str], kind: str, *, standards_apart: bool = True
) -> list[Contestant]:
    """Those of *names* that know sessions of this *kind*.

    Whoever has another FastAPI is measured by standards that have it, too.
    """
    found = [CONTESTANTS[name] for name in names if kind in CONTESTANTS[name].kinds]
    for one in [one for one in found if one.apart and standards_apart]:
        for name in STANDARDS:
            standard = CONTESTANTS[name]
            found.append(standard._replace(package=one.package, apart=one.apart))
    return found
