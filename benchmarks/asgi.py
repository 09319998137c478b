"""Requests by raw ASGI calls: a server that costs next to nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import uvicorn
from uvicorn.lifespan.on import LifespanOn

from .contestants import Setup
from .workloads import Workload

Message = MutableMapping[str, Any]
REQUEST = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"test")],
    "client": ("127.0.0.1", 1),
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

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


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


@asynccontextmanager
async def running(name: str, app: Any, setup: Setup) -> AsyncIterator[Stage]:
    """Start *app* up, and shut it down at the end."""
    lifespan = LifespanOn(uvicorn.Config(app, log_config=None))
    await lifespan.startup()
    if lifespan.should_exit:
        raise RuntimeError(f"{name} does not start up")
    yield Stage(name, app, lifespan.state, setup)
    await lifespan.shutdown()
