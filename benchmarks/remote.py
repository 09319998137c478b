"""One read over a network: a GET of one row, with a delay before each answer.

    python tools/postgres.py -- python -m benchmarks.remote [--delays 0.5 1 2]

A proxy in a process of its own holds back what the server sends for so many
milliseconds. Prints requests per second, the median and the 99th percentile of their
times, and the CPU time of the application for each. Needs a PostgreSQL server:
UNITWORK_TEST_POSTGRESQL.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from sqlalchemy import make_url

from support.asgi import call

from .contestants import CONTESTANTS, Built, Setup, unitwork
from .options import database
from .workloads import read

CONTESTANTS_HERE: dict[str, Callable[[Setup], Built]] = {
    "unitwork, release='statement'": partial(unitwork, release="statement"),
    "unitwork": unitwork,
    **{name: CONTESTANTS[name].build for name in ("plain", "limit", "depends")},
}


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


class Turns:
    """The requests of one contestant, over several turns."""

    def __init__(self, built: Built) -> None:
        self._app = built.app
        self._app.add_api_route("/measured", built.wrap(read))
        self._times: list[float] = []
        self._took = self._cpu = 0.0

    async def warm_up(self) -> None:
        for _ in range(20):  # by then the statement is prepared
            await call(self._app, "GET", "/measured")

    async def take(self, seconds: float, at_once: int) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        until = began + seconds
        await asyncio.gather(*(self._client(until) for _ in range(at_once)))
        self._cpu += time.process_time() - cpu
        self._took += time.perf_counter() - began

    async def _client(self, until: float) -> None:
        while (began := time.perf_counter()) < until:
            reply = await call(self._app, "GET", "/measured")
            assert reply.status == 200
            self._times.append(time.perf_counter() - began)

    @property
    def found(self) -> Found:
        number = len(self._times)
        slowest = statistics.quantiles(self._times, n=100)[98]
        median = statistics.median(self._times)
        cpu = 1e6 * self._cpu / number
        return Found(number / self._took, 1e3 * median, 1e3 * slowest, cpu)


async def measure(
    driver: str, url: str, seconds: float, at_once: int, turns: int = 10
) -> dict[str, Found]:
    """All contestants in one process, in turns."""
    found = {}
    for name, build in CONTESTANTS_HERE.items():
        found[name] = Turns(build(Setup(driver, url, {"pool_size": 32})))
        await found[name].warm_up()
    for _ in range(turns):
        for each in found.values():
            await each.take(seconds / turns, at_once)
    return {name: each.found for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--delays", nargs="*", type=float, default=[0.5, 1.0, 2.0])
    parser.add_argument("--drivers", nargs="*", default=["asyncpg"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    print("| driver | ms | contestant | requests/s | p50 ms | p99 ms | CPU us |")
    print("|---|--:|---|--:|--:|--:|--:|")
    for driver in given.drivers:
        with database(driver) as url:
            for delay in given.delays:
                with delayed(url, delay / 1000) as there:
                    measured = measure(driver, there, given.seconds, given.at_once)
                    found = asyncio.run(measured)
                for name, each in found.items():
                    shown = " | ".join(f"{number:.2f}" for number in each)
                    print(f"| {driver} | {delay} | {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
