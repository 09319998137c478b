"""Requests over sockets, to uvicorn: throughput, and overload of a small pool."""

import asyncio
import socket
import time
from collections import Counter
from functools import partial
from statistics import quantiles
from typing import Any, NamedTuple

import uvicorn
from sqlalchemy import text

from .contestants import IN_TRANSACTIONS, Built, Setup
from .crew import crews, in_turns, playing, standard_of
from .numbers import spread
from .options import POPULAR, Options
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
    """Keeps connections alive, and uses them again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def request(self, method: str, path: str, due: float) -> Reply:
        """Send a request; its time counts from when it was *due*."""
        head, status, streams = b"", NO_ANSWER, self._idle.pop() if self._idle else None
        try:
            async with asyncio.timeout(PATIENCE):
                streams = streams or await asyncio.open_connection(HOST, self._port)
                reader, writer = streams
                request = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n"
                writer.write(f"{request}Content-Length: 0\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                self._idle.append(streams)
                status = int(head[9:12])
        except (OSError, EOFError, TimeoutError):
            if streams is not None:
                streams[1].transport.abort()
        return Reply(status, due, time.perf_counter(), b"\r\nretry-after:" in head)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()


async def closed(
    clients: int, seconds: float, path: str, method: str, port: int
) -> Case:
    """Let *clients* send requests, each as soon as the one before is answered."""
    client, start, replies = Client(port), time.perf_counter(), list[Reply]()

    async def send() -> None:
        while (now := time.perf_counter()) < start + seconds:
            replies.append(await client.request(method, path, now))

    await asyncio.gather(*(send() for _ in range(clients)))
    client.close()
    return summed(replies, start)


async def arriving(port: int, path: str, rate: float, seconds: float) -> Case:
    """Let a request arrive every 1 / *rate* seconds, answered or not."""
    client, start = Client(port), time.perf_counter()
    tasks: list[asyncio.Task[Reply]] = []
    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(client.request("GET", path, due)))
    replies = await asyncio.gather(*tasks)
    client.close()
    return summed(replies, start)


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
    everybody, seconds = [*IN_TRANSACTIONS, "bare"], options.seconds(1.2)
    async for driver, workers in crews(options, POPULAR, everybody, pool_size=20):
        ports = {name: await each.call(serve) for name, each in workers.items()}
        for load in options.workloads[:4]:
            case = {"driver": driver, "workload": load.name}
            run = partial(closed, CLIENTS, seconds, f"/{load.name}", load.method)
            measured = await in_turns(playing(ports, load), options.rounds(4), run)
            speed = {n: [each["served, /s"] for each in m] for n, m in measured.items()}
            for name, found in measured.items():
                shown = {
                    "requests a second": spread(speed[name]),
                    "against the limit": spread(
                        speed[name], speed[standard_of(load.name)]
                    ),
                    "p99, s": spread([each["p99 of those, s"] for each in found]),
                    "failed": sum(each[key] for each in found for key in FAILURES),
                }
                results += rows(shown, contestant=name, **case)
    return results


def rows(shown: Case, **case: str) -> list[Case]:
    return [{**case, "what": what, "value": value} for what, value in shown.items()]


async def overload(options: Options) -> list[Case]:
    """Twice as many requests as a pool of 5 connections can serve."""
    results: list[Case] = []
    async for driver, workers in crews(
        options, POPULAR, alone=True, pool_size=POOL, max_overflow=0, pool_timeout=2
    ):
        for name, worker in workers.items():
            port = await worker.call(serve)
            calm = await closed(POOL, options.seconds(4.0), "/slow", "GET", port)
            capacity = max(calm["served, /s"], 1.0)
            found = await arriving(port, "/slow", 2 * capacity, options.seconds(8.0))
            after = await closed(1, 0.0001, "/slow", "GET", port)
            well = "no" if sum(after[key] for key in FAILURES) else "yes"
            shown = {"capacity, /s": capacity, **found, "works again": well}
            results += rows(shown, driver=driver, contestant=name)
    return results
