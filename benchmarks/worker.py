"""A contestant in a process of its own, which runs the functions that come by a pipe.

The functions are of this package; their first argument is the `Stage`. Requests are raw
ASGI calls.
"""

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import uvicorn
from uvicorn.lifespan.on import LifespanOn

import unitwork

from .contestants import Setup, build
from .workloads import Workload

Message = MutableMapping[str, Any]
REQUEST: dict[str, Any] = {
    **{"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}},
    **{"http_version": "1.1", "scheme": "http", "query_string": b"", "root_path": ""},
    **{"headers": [(b"host", b"test")], "client": ("127.0.0.1", 1)},
    "server": ("127.0.0.1", 80),
}


class Exchange:
    """One request, and the messages of its response."""

    __slots__ = ("_body_read", "messages")

    def __init__(self) -> None:
        self._body_read = False
        self.messages: list[Message] = []

    async def receive(self) -> Message:
        if self._body_read:
            await asyncio.Event().wait()  # this client never disconnects
        self._body_read = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        found = (each["status"] for each in self.messages if "status" in each)
        return int(next(found, 0))


class Stage(NamedTuple):
    """A contestant that is up."""

    name: str
    app: Callable[..., Awaitable[None]]
    state: dict[str, Any]
    setup: Setup

    async def request(self, workload: Workload) -> Exchange:
        exchange = Exchange()
        scope = self.scope(workload.method, f"/{workload.name}")
        await self.app(scope, exchange.receive, exchange.send)
        return exchange

    def scope(self, method: str, path: str) -> dict[str, Any]:
        raw, state = path.encode(), self.state.copy()
        changes = {"method": method, "path": path, "raw_path": raw, "state": state}
        return REQUEST | changes


def run(calls: Connection, name: str, setup: Setup) -> None:
    """Be the process of *name*: answer *calls* until the other end closes."""
    os.dup2(2, 1)  # the standard output is for the tables alone
    asyncio.run(answer(calls, name, setup))


async def answer(calls: Connection, name: str, setup: Setup) -> None:
    """Each call is a function and its arguments; each answer its result, or why not."""
    try:
        built = build(name, setup)
        # They have routes of their own.
        for section in ("guarantees", "traffic", "idle", "connections"):
            import_module(f".{section}", __package__).add_routes(built, setup)
        lifespan = LifespanOn(uvicorn.Config(built.app, log_config=None))
        await lifespan.startup()
        if lifespan.should_exit:
            raise RuntimeError("it does not start up")
        stage = Stage(name, built.app, lifespan.state, setup)
        gc.freeze()
        calls.send((unitwork.__path__[0], None))
        while True:
            function, arguments = await asyncio.to_thread(calls.recv)
            gc.collect()
            calls.send((await function(stage, **arguments), None))
    except EOFError:
        await lifespan.shutdown()
    except Exception as error:
        calls.send((None, f"{type(error).__name__}: {error}"))
