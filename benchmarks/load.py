"""Clients over real sockets: closed (each waits for its answer) or open (nobody waits).

An open load arrives at its rate, however slow the server is: as strangers do.
"""

import asyncio
import resource
import time
from typing import NamedTuple, Self

HEAD = "{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n"
GONE = 0
"""The status of a request that nobody has answered."""


class Reply(NamedTuple):
    status: int
    seconds: float
    retry_after: bool = False
    arrived: float = 0.0
    """When it was due, in seconds after the first."""


class Line(asyncio.Protocol):
    """A connection that is kept alive, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._received = b""
        self.open = True

    @classmethod
    async def connect(cls, port: int) -> Self:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(cls, "127.0.0.1", port)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer is not None and complete(self._received):
            answer, self._answer = self._answer, None
            if not answer.done():
                answer.set_result(self._received)
            self._received = b""

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(b"")

    async def ask(self, request: bytes, since: float | None = None) -> Reply:
        """Send *request*, and wait; the time counts *since* a moment in the past."""
        assert self._transport is not None
        since = since or time.perf_counter()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        answer = await self._answer
        seconds = time.perf_counter() - since
        status = int(answer[9:12]) if answer else GONE
        return Reply(status, seconds, b"\r\nretry-after:" in answer.lower())

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()


def complete(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    _, found, rest = head.lower().partition(b"\r\ncontent-length: ")
    if found:
        return len(body) >= int(rest.partition(b"\r\n")[0])
    return body.endswith(b"0\r\n\r\n")


def request(method: str, path: str) -> bytes:
    return HEAD.format(method=method, path=path).encode()


def allow_many_sockets() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def closed(
    port: int, asked: bytes, *, clients: int, seconds: float
) -> list[Reply]:
    """Let *clients* ask, one request after the other, for *seconds*."""
    lines = [await Line.connect(port) for _ in range(clients)]
    replies: list[Reply] = []
    start = time.perf_counter()

    async def client(line: Line) -> None:
        since = start
        while line.open:
            reply = await line.ask(asked)
            replies.append(reply._replace(arrived=since - start))
            since = time.perf_counter()
            if since - start > seconds:
                line.close()

    await asyncio.gather(*(client(line) for line in lines))
    return replies


def speed(replies: list[Reply], status: int) -> float:
    """Answers with *status* in a second, from the first request to the last answer."""
    ends = [each.arrived + each.seconds for each in replies if each.status == status]
    return len(ends) / max(ends, default=1.0)


async def arriving(
    port: int, asked: bytes, *, rate: float, seconds: float, patience: float
) -> list[Reply]:
    """Let a request arrive every 1 / *rate* seconds; none waits beyond *patience*."""
    free: list[Line] = []
    start = time.perf_counter()

    async def one(since: float) -> Reply:
        line = None
        try:
            async with asyncio.timeout(patience):
                line = free.pop() if free else await Line.connect(port)
                reply = await line.ask(asked, since)
        except (OSError, TimeoutError):
            if line is not None:
                line.close()
            return Reply(GONE, time.perf_counter() - since)
        if line.open:
            free.append(line)
        return reply

    async with asyncio.TaskGroup() as group:
        tasks: list[asyncio.Task[Reply]] = []
        for number in range(int(rate * seconds)):
            due = start + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            tasks.append(group.create_task(one(due)))
    for line in free:
        line.close()
    return [
        task.result()._replace(arrived=number / rate)
        for number, task in enumerate(tasks)
    ]
