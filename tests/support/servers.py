"""Real servers on loopback: in this event loop, or in a process of their own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process, create_subprocess_exec
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import uvicorn

from support.asgi import ASGIApp
from support.flavours import Flavour

Serve = Callable[[ASGIApp], AbstractAsyncContextManager[int]]
TESTS = Path(__file__).parent.parent


def listen() -> socket.socket:
    """A socket on a free port, to which clients can connect before it is served."""
    # Without the protocol asyncio does not know it for TCP, and lets answers linger.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    listening.setblocking(False)
    return listening


@asynccontextmanager
async def uvicorn_server(app: ASGIApp) -> AsyncIterator[int]:
    """Serve *app* with uvicorn; gives the port."""
    config = uvicorn.Config(app, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    with listen() as listening:
        async with _beside(server._serve([listening])):
            yield listening.getsockname()[1]
            server.should_exit = True


@asynccontextmanager
async def hypercorn_server(app: ASGIApp) -> AsyncIterator[int]:
    """Serve *app* with hypercorn; gives the port."""
    listening = listen()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{os.dup(listening.fileno())}"]
    config.errorlog = None
    config.graceful_timeout = 1
    stop = asyncio.Event()
    serving = hypercorn.asyncio.serve(
        app,  # type: ignore[arg-type]  # its types are its own
        config,
        shutdown_trigger=stop.wait,  # type: ignore[arg-type]
    )
    with listening:
        async with _beside(serving):
            yield listening.getsockname()[1]
            stop.set()


@asynccontextmanager
async def _beside(serving: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(serving)
    try:
        yield
    finally:
        async with asyncio.timeout(10):
            await task


SERVERS = [uvicorn_server, hypercorn_server]
COMMANDS = {
    "uvicorn": ["--timeout-graceful-shutdown", "1", "--fd"],
    "hypercorn": ["--graceful-timeout", "1", "--bind"],
}


@asynccontextmanager
async def process(name: str, flavour: Flavour) -> AsyncIterator[tuple[Process, int]]:
    """Serve `support.served` with the server *name*; gives its process and port."""
    listening = listen()
    number = str(listening.fileno())
    where = {"uvicorn": number, "hypercorn": f"fd://{number}"}[name]
    server = await create_subprocess_exec(
        *(sys.executable, "-m", name, "support.served:app", *COMMANDS[name], where),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
            "UNITWORK_SERVED": f"{flavour.name} {flavour.url}",
        },
        pass_fds=[listening.fileno()],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        with listening:  # later a client must find out that no server listens any more
            port = listening.getsockname()[1]
            await talk(port, "GET", "/items")
        yield server, port
    finally:
        if server.returncode is None:
            server.kill()
        await server.wait()


async def talk(port: int, method: str, path: str) -> bytes:
    """Make one request on a connection of its own; return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close", "", ""]
        writer.write("\r\n".join(lines).encode())
        return await reader.read()
    finally:
        writer.close()


def parse(answer: bytes) -> tuple[int, bytes]:
    """The status and body of *answer*; fails unless it is exactly one response.

    Status 0: the server has gone without an answer.
    """
    if not answer:
        return 0, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    if "content-length" in headers:
        assert int(headers["content-length"]) == len(body), answer
    else:
        assert body.endswith(b"0\r\n\r\n"), answer
    return int(start.split()[1]), body
