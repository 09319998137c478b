"""Requests over sockets, to uvicorn: throughput, and overload of a small pool."""

import asyncio
import random
import socket
import time
from collections import defaultdict
from statistics import quantiles
from typing import Any, NamedTuple

import uvicorn
from sqlalchemy import text

from .asgi import Stage
from .contestants import Built, Setup
from .crew import correct, crews, standard_of
from .numbers import ratio, spread
from .options import Options
from .registry import POPULAR
from .workloads import Steps

CLIENTS, POOL = 32, 5
HELD = 0.04
"""Seconds for which a request holds its connection: the pool is the bottleneck."""
PATIENCE = 10.0
NO_ANSWER = 0
_serving: set[asyncio.Task[None]] = set()


def slow(session: Any) -> Steps:
    yield session.execute(text(f"SELECT pg_sleep({HELD})"))
    return {"slow": "done"}


def add_routes(built: Built, setup: Setup) -> None:
    # With a response model, as most have one: it is checked in a thread, too.
    built.app.add_api_route("/slow", built.wrap(slow), response_model=dict[str, str])


async def serve(stage: Stage) -> int:
    """Serve from now on; give the port."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    # The worker has started the application up, and will shut it down.
    config = uvicorn.Config(
        stage.app, log_config=None, access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    _serving.add(asyncio.create_task(server._serve([listening])))
    return int(listening.getsockname()[1])


class Reply(NamedTuple):
    status: int
    seconds: float
    arrived: float
    """Seconds after the start of the load."""
    retry_after: bool = False


class Client:
    """A connection that is kept alive, for one request at a time."""

    def __init__(self, port: int, start: float) -> None:
        self._port, self._start = port, start
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, due: float | None = None) -> Reply:
        """Send a request; its time counts from when it was *due*."""
        due = due or time.perf_counter()
        head = b""
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    opened = asyncio.open_connection("127.0.0.1", self._port)
                    self._streams = await opened
                reader, writer = self._streams
                request = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n"
                writer.write(f"{request}Content-Length: 0\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2]
                await reader.readexactly(int(length.partition(b"\r\n")[0]))
        except (OSError, EOFError, TimeoutError):
            self.close()
        status = int(head[9:12]) if self._streams else NO_ANSWER
        seconds, retry_after = time.perf_counter() - due, b"\r\nretry-after:" in head
        return Reply(status, seconds, due - self._start, retry_after)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams = None


async def closed(
    port: int, method: str, path: str, clients: int, seconds: float
) -> list[Reply]:
    """Let *clients* send requests, each as soon as the one before is answered."""
    start, replies = time.perf_counter(), list[Reply]()

    async def send() -> None:
        client = Client(port, start)
        while time.perf_counter() - start < seconds:
            replies.append(await client.request(method, path))
        client.close()

    await asyncio.gather(*(send() for _ in range(clients)))
    return replies


async def arriving(port: int, path: str, rate: float, seconds: float) -> list[Reply]:
    """Let a request arrive every 1 / *rate* seconds, answered or not."""
    idle, start = list[Client](), time.perf_counter()

    async def send(due: float) -> Reply:
        client = idle.pop() if idle else Client(port, start)
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
    return [task.result() for task in tasks]


def summed(replies: list[Reply], status: int = 200) -> dict[str, Any]:
    """Answers with *status* in a second, and how long the slowest of them took."""
    good = [reply for reply in replies if reply.status == status]
    times = [reply.seconds for reply in good]
    return {
        "per_second": len(good) / max((r.arrived + r.seconds for r in good), default=1),
        "p99_s": quantiles(times, n=100)[98] if len(times) > 1 else None,
        "failed": len(replies) - len(good),
    }


async def throughput(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    seconds = options.seconds(1.2)
    async for driver, workers in crews(
        options, POPULAR, leave_out=(), apart=True, pool_size=20
    ):
        ports = {name: await each.call(serve) for name, each in workers.items()}
        for load in options.workloads[:4]:
            measured: dict[str, list[dict[str, Any]]] = defaultdict(list)
            names = await correct(options, workers, load)
            for number in range(options.rounds(4) + 1):
                for name in random.sample(names, len(names)):
                    path = f"/{load.name}"
                    sent = closed(ports[name], load.method, path, CLIENTS, seconds)
                    found = summed(await sent, load.status)
                    if number:  # the first is to warm up
                        measured[name].append(found)
            speeds = {n: [r["per_second"] for r in m] for n, m in measured.items()}
            results += [
                {
                    **{"driver": driver, "workload": load.name, "contestant": name},
                    "per_second": spread(speeds[name]),
                    "p99_s": spread([each["p99_s"] or PATIENCE for each in found]),
                    "ratio": ratio(speeds[name], speeds[standard_of(name, load.name)]),
                    "failed": sum(each["failed"] for each in found),
                }
                for name, found in measured.items()
                if "@" not in name
            ]
    return results


async def overload(options: Options) -> list[dict[str, Any]]:
    """Twice as many requests as a pool of 5 connections can serve."""
    results: list[dict[str, Any]] = []
    async for driver, workers in crews(
        options, POPULAR, alone=True, pool_size=POOL, max_overflow=0, pool_timeout=2
    ):
        for name, worker in workers.items():
            port = await worker.call(serve)
            calm = await closed(port, "GET", "/slow", POOL, options.seconds(4.0))
            rate = max(2 * summed(calm)["per_second"], 2.0)
            replies = await arriving(port, "/slow", rate, options.seconds(8.0))
            end = time.perf_counter()
            again = await Client(port, end).request("GET", "/slow")
            statuses = [reply.status for reply in replies]
            refused = [reply.retry_after for reply in replies if reply.status == 503]
            found = summed(replies)
            shown: dict[str, Any] = {
                "capacity, /s": rate / 2,
                "served, /s": found["per_second"],
                "p99 of those, s": found["p99_s"],
                "503": len(refused),
                "with Retry-After": sum(refused),
                "no answer": statuses.count(NO_ANSWER),
                "other errors": found["failed"]
                - len(refused)
                - statuses.count(NO_ANSWER),
                "well again after, s": again.seconds
                if again.status == 200
                else "never",
            }
            case = {"driver": driver, "contestant": name}
            results += [{**case, "what": k, "value": v} for k, v in shown.items()]
    return results
