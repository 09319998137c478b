"""The driver's side of the workers: a process for each contestant, called in turns."""

import asyncio
import multiprocessing
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, TypeVar
from unittest.mock import patch

from support.proxy import Proxy

from .contestants import BEFORE, CONTESTANTS, IN_TRANSACTIONS, Setup
from .options import Options, database
from .worker import run
from .workloads import Workload

Workers = dict[str, "Worker"]
Target = TypeVar("Target")
Result = TypeVar("Result")


class Worker:
    """A process in which one contestant is up: see `worker.py`."""

    def __init__(self, name: str, setup: Setup, method: str) -> None:
        processes: Any = multiprocessing.get_context(method)
        processes.set_forkserver_preload([run.__module__])
        self._calls, theirs = processes.Pipe()
        arguments = (theirs, name, setup)
        self._process = processes.Process(target=run, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    async def answer(self) -> Any:
        try:
            value, error = await asyncio.to_thread(self._calls.recv)
        except EOFError:
            raise RuntimeError("its process ended") from None
        if error is not None:
            raise RuntimeError(error)
        return value

    async def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Run *function* in the worker; raises `RuntimeError` if it fails there."""
        self._calls.send((function, arguments))
        return await self.answer()

    async def stop(self) -> None:
        """Let it shut down; end it if that takes too long."""
        self._calls.close()
        await asyncio.to_thread(self._process.join, 10)
        self._process.kill()


async def crews(
    options: Options,
    drivers: Iterable[str],
    among: Iterable[str] = IN_TRANSACTIONS,
    *,
    alone: bool = False,
    times: int = 1,
    traps: Iterable[Any] | None = None,
    **engine: Any,
) -> AsyncIterator[tuple[str, Workers]]:
    """Give a driver, and the workers for it: all together, or each *alone*.

    With *traps*, they reach the database through a proxy, which shows them what passes.
    """
    for driver in (driver for driver in drivers if driver in options.drivers):
        names = [n for n in options.contestants if n in among]
        names = [name for name in names if CONTESTANTS[name].runs_on(driver)]
        for some in ([[name] for name in names] if alone else [names]) * times:
            print(f"{datetime.now():%X} {driver}: {', '.join(some)}", file=sys.stderr)
            with database(driver) as url:
                async with AsyncExitStack() as stack:
                    if traps is not None:
                        proxy = await stack.enter_async_context(Proxy(url))
                        proxy.for_newcomers, url = [*traps], proxy.url
                    setup = Setup(driver, url, engine)
                    yield driver, await start(options, some, setup, stack)


async def start(
    options: Options, names: Iterable[str], setup: Setup, stack: AsyncExitStack
) -> Workers:
    """Start a worker for each of *names* that can run; note why others are missing."""
    workers: Workers = {}
    for name in names:
        before = [options.before] if options.before and name in BEFORE.values() else []
        with patch("sys.path", [*before, *sys.path]):
            worker = Worker(name, setup, options.start_method)
        stack.push_async_callback(worker.stop)
        try:
            used = await worker.answer()
            if before and not used.startswith(*before):
                raise RuntimeError(f"it uses {used}")
            workers[name] = worker
        except RuntimeError as error:
            options.missing[name] = str(error)
    return workers


async def in_turns(
    targets: dict[str, Target],
    rounds: int,
    measure: Callable[[Target], Awaitable[Result]],
) -> dict[str, list[Result]]:
    """Call *measure* with each target, once to warm up and then in each of *rounds*.

    The order is another one in each round: a drift affects all of them alike.
    """
    results: dict[str, list[Result]] = {name: [] for name in targets}
    for _ in range(rounds + 1):
        for name in random.sample([*results], len(results)):
            results[name].append(await measure(targets[name]))
    return {name: found[1:] for name, found in results.items()}


def playing(targets: dict[str, Target], load: Workload) -> dict[str, Target]:
    """Those who can do it: "no middleware" has no session."""
    return {n: each for n, each in targets.items() if n != "bare" or not load.work}


def standard_of(load: str) -> str:
    """What all are measured against."""
    return "bare" if load == "nothing" else "limit"
