"""Requests over sockets, to uvicorn: throughput, and overload of a small pool."""

import asyncio
import random
import socket
import time
from collections import Counter
from statistics import quantiles
from typing import Any, NamedTuple

import uvicorn
from sqlalchemy import text

from .contestants import Built, Setup
from .crew import correct, crews, standard_of
from .numbers import spread
from .options import Options
from .registry import POPULAR
from .worker import Stage
from .workloads import Steps

HOST, CLIENTS, POOL, PATIENCE, NO_ANSWER = "127.0.0.1", 32, 5, 10.0, 0
_serving: set[asyncio.Task[None]] = set()
FAILURES = ("503", "no answer", "other errors")
Case = dict[str, Any]


def slow(session: Any) -> Steps:
    yield session.execute(text("SELECT pg_sleep(0.04)"))  # so the pool is what is short
    return {"slow": "done"}


def add_routes(built: Built, setup: Setup) -> None:
    # With a response model, as most have one: it is checked in a thread, too.
    built.app.add_api_route("/slow", built.wrap(slow), response_model=dict[str, str])


async def serve(stage: Stage) -> int:
    """Serve from now on; give the port."""
    # asyncio sets TCP_NODELAY only where the protocol is named.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind((HOST, 0))
    listening.listen(2048)
    # The worker has started the application up, and will shut it down.
    config = uvicorn.Config(stage.app, log_config=None, lifespan="off")
    config.access_log = False
    _serving.add(asyncio.create_task(uvicorn.Server(config)._serve([listening])))
    return int(listening.getsockname()[1])


class Reply(NamedTuple):
    status: int
    due: float
    end: float
    retry_after: bool


class Client:
    """A connection that is kept alive, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, due: float | None = None) -> Reply:
        """Send a request; its time counts from when it was *due*."""
        due, head, status = due or time.perf_counter(), b"", NO_ANSWER
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(HOST, self._port)
                reader, writer = self._streams
                request = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n"
                writer.write(f"{request}Content-Length: 0\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                status = int(head[9:12])
        except (OSError, EOFError, TimeoutError):
            self.close()
        return Reply(status, due, time.perf_counter(), b"\r\nretry-after:" in head)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


async def closed(
    port: int, clients: int, seconds: float, path: str, method: str = "GET"
) -> Case:
    """Let *clients* send requests, each as soon as the one before is answered."""
    start, replies = time.perf_counter(), list[Reply]()

    async def send() -> None:
        client = Client(port)
        while time.perf_counter() - start < seconds:
            replies.append(await client.request(method, path))
        client.close()

    await asyncio.gather(*(send() for _ in range(clients)))
    return summed(replies, start)


async def arriving(port: int, path: str, rate: float, seconds: float) -> Case:
    """Let a request arrive every 1 / *rate* seconds, answered or not."""
    idle, start = list[Client](), time.perf_counter()

    async def send(due: float) -> Reply:
        client = idle.pop() if idle else Client(port)
        reply = await client.request("GET", path, due)
        idle.append(client)
        return reply

    async with asyncio.TaskGroup() as group:
        tasks = list[asyncio.Task[Reply]]()
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            tasks.append(group.create_task(send(due)))
    for client in idle:
        client.close()
    return summed([task.result() for task in tasks], start)


def summed(replies: list[Reply], start: float) -> Case:
    """How many were served in a second, the slowest of them, and what else came."""
    served = [reply for reply in replies if reply.status == 200]
    times = [reply.end - reply.due for reply in served] * 2
    statuses = Counter(reply.status for reply in replies)
    took = max((reply.end for reply in served), default=start + 1) - start
    foreseen = sum(statuses[each] for each in (200, 503, NO_ANSWER))
    return {
        "served, /s": len(served) / took,
        "p99 of those, s": quantiles(times, n=100)[98] if times else PATIENCE,
        "503": statuses[503],
        "with Retry-After": sum(reply.retry_after for reply in replies),
        "no answer": statuses[NO_ANSWER],
        "other errors": len(replies) - foreseen,
    }


async def throughput(options: Options) -> list[Case]:
    results: list[Case] = []
    seconds = options.seconds(1.2)
    async for driver, workers in crews(
        options, POPULAR, without=(), apart=True, pool_size=20
    ):
        ports = {name: await each.call(serve) for name, each in workers.items()}
        for load in options.workloads[:4]:
            names, path = await correct(options, workers, load), f"/{load.name}"
            measured: dict[str, list[Case]] = {name: [] for name in names}
            for number in range(options.rounds(4) + 1):
                for name in random.sample(names, len(names)):
                    sent = closed(ports[name], CLIENTS, seconds, path, load.method)
                    found = await sent
                    measured[name] += [found] * bool(number)  # the first is to warm up
            speeds = {
                n: [each["served, /s"] for each in m] for n, m in measured.items()
            }
            results += [
                {
                    **{"driver": driver, "workload": load.name, "contestant": name},
                    "per_second": spread(speeds[name]),
                    "p99_s": spread([each["p99 of those, s"] for each in found]),
                    "ratio": spread(speeds[name], speeds[standard_of(name, load.name)]),
                    "failed": sum(each[key] for each in found for key in FAILURES),
                }
                for name, found in measured.items()
                if "@" not in name
            ]
    return results


async def overload(options: Options) -> list[Case]:
    """Twice as many requests as a pool of 5 connections can serve."""
    results: list[Case] = []
    async for driver, workers in crews(
        options, POPULAR, alone=True, pool_size=POOL, max_overflow=0, pool_timeout=2
    ):
        for name, worker in workers.items():
            port = await worker.call(serve)
            calm = await closed(port, POOL, options.seconds(4.0), "/slow")
            capacity = max(calm["served, /s"], 1.0)
            found = await arriving(port, "/slow", 2 * capacity, options.seconds(8.0))
            after = await closed(port, 1, 0.0001, "/slow")
            well = "no" if sum(after[key] for key in FAILURES) else "yes"
            shown = {"capacity, /s": capacity, **found, "works again": well}
            case = {"driver": driver, "contestant": name}
            results += [{**case, "what": k, "value": v} for k, v in shown.items()]
    return results
