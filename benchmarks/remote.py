"""One read over a network: a GET of one row, with a delay before each answer.

    python tools/postgres.py -- python -m benchmarks.remote [--delays 0.5 1 2]

A proxy in a process of its own holds back what the server sends for so many
milliseconds. Each contestant has a process of its own, too; they take turns. Prints
requests per second, the median and the 99th percentile of their times, and the CPU time
of the application for each. Needs a PostgreSQL server: UNITWORK_TEST_POSTGRESQL.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import product
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, cast

from sqlalchemy import make_url

from .contestants import BEFORE, CONTESTANTS, IN_TRANSACTIONS, STATEMENT, Setup
from .crew import Worker, in_turns, start
from .options import Options, database
from .worker import Stage
from .workloads import WORKLOADS

TURNS = 10


class Found(NamedTuple):
    per_second: float
    median: float
    slowest: float
    cpu: float


class _Delayed(asyncio.Protocol):
    """One side of a connection: passes on to the other what it receives, later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._early: list[bytes] = []
        self.other: asyncio.WriteTransport | None = None

    def data_received(self, data: bytes) -> None:
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._pass, data)
        else:
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self.other.write(data)

    def lead_to(self, other: asyncio.WriteTransport) -> None:
        self.other = other
        for data in self._early:
            other.write(data)
        self._early.clear()

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class _Client(_Delayed):
    def __init__(self, address: tuple[str, int], delay: float) -> None:
        super().__init__(0)
        self._address, self._to_client = address, delay

    def connection_made(self, transport: Any) -> None:
        self._connecting = asyncio.ensure_future(self._connect(transport))

    async def _connect(self, transport: Any) -> None:
        loop = asyncio.get_running_loop()
        server = _Delayed(self._to_client)
        made, _ = await loop.create_connection(lambda: server, *self._address)
        server.lead_to(transport)
        self.lead_to(made)


def _serve(address: tuple[str, int], delay: float, answer: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: _Client(address, delay), "127.0.0.1", 0
        )
        answer.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    # epoll waits for whole milliseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve())


@contextmanager
def delayed(url: str, delay: float) -> Iterator[str]:
    """The same database, whose answers take *delay* seconds longer."""
    made = make_url(url)
    ours, theirs = Pipe()
    address = made.host or "127.0.0.1", made.port or 5432
    process = Process(target=_serve, args=(address, delay, theirs), daemon=True)
    process.start()
    try:
        port = ours.recv()
        yield made.set(host="127.0.0.1", port=port).render_as_string(False)
    finally:
        process.terminate()
        process.join()


class Taken(NamedTuple):
    """The requests of one contestant in one turn: their times, in seconds."""

    times: list[float]
    took: float
    cpu: float


async def take(stage: Stage, seconds: float, at_once: int) -> Taken:
    """Send one request after the other for so many *seconds*, by each of *at_once*."""
    times: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    until = began + seconds

    async def send() -> None:
        while (start := time.perf_counter()) < until:
            exchange = await stage.request(WORKLOADS["read"])
            assert exchange.status == 200
            times.append(time.perf_counter() - start)

    await asyncio.gather(*(send() for _ in range(at_once)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Taken(times, took, cpu)


def summed(turns: list[Taken]) -> Found:
    times = [each for turn in turns for each in turn.times]
    per_second = len(times) / sum(turn.took for turn in turns)
    cpu = 1e6 * sum(turn.cpu for turn in turns) / len(times)
    slowest = statistics.quantiles(times, n=100)[98]
    return Found(per_second, 1e3 * statistics.median(times), 1e3 * slowest, cpu)


async def measure(
    driver: str, url: str, options: Options, seconds: float, at_once: int
) -> dict[str, Found]:
    """All contestants, each in a process of its own, in turns."""
    names = [name for name in options.contestants if CONTESTANTS[name].runs_on(driver)]
    async with AsyncExitStack() as stack:
        setup = Setup(driver, url, {"pool_size": 32})
        workers = await start(options, names, setup, stack)

        async def turn(worker: Worker) -> Taken:
            taken = await worker.call(take, seconds=seconds / TURNS, at_once=at_once)
            return cast("Taken", taken)

        found = await in_turns(workers, TURNS, turn)
    return {name: summed(turns) for name, turns in found.items()}


def main() -> None:
    everyone = [STATEMENT, *(n for n in IN_TRANSACTIONS if n not in BEFORE.values())]
    parser = argparse.ArgumentParser()
    parser.add_argument("--delays", nargs="*", type=float, default=[0.5, 1.0, 2.0])
    parser.add_argument("--drivers", nargs="*", default=["asyncpg"])
    parser.add_argument("--contestants", nargs="*", default=everyone)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    options = Options(given.contestants, given.drivers, [], "full")
    print("| driver | ms | contestant | requests/s | p50 ms | p99 ms | CPU us |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for driver, delay in product(given.drivers, given.delays):
        with database(driver) as url, delayed(url, delay / 1000) as there:
            found = asyncio.run(
                measure(driver, there, options, given.seconds, given.at_once)
            )
        for name, each in found.items():
            shown = " | ".join(f"{number:.2f}" for number in each)
            title = CONTESTANTS[name].title
            print(f"| {driver} | {delay} | {title} | {shown} |", flush=True)
    for name, why in options.missing.items():
        print(f"{name} does not take part: {why}", flush=True)


if __name__ == "__main__":
    main()
