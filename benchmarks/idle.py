"""Connections that stay open and idle, WebSocket or SSE: what do they hold?"""

import asyncio
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

from fastapi import Depends, WebSocket
from fastapi.responses import StreamingResponse

from .contestants import Built, Setup
from .crew import crews
from .options import Options
from .worker import Exchange, Message, Stage
from .workloads import IDLE_IN_TRANSACTION, WORKLOADS, Steps, read, scalar

COUNTS = (1, 10, 100, 1_000, 10_000)
READY = "data: ready\n\n"
_leave = asyncio.Event()


async def events() -> AsyncIterator[str]:
    yield READY
    await _leave.wait()


def subscribe(session: Any) -> Steps:
    yield from read(session)
    return StreamingResponse(events(), media_type="text/event-stream")


def add_routes(built: Built, setup: Setup) -> None:
    used = Depends(built.wrap(read))

    async def socket(websocket: WebSocket, answer: Any = used) -> None:
        await websocket.accept()
        await websocket.send_text(READY)
        await websocket.receive()

    if setup.is_async:
        built.app.add_api_route("/sse", built.wrap(subscribe))
        built.app.add_api_websocket_route("/socket", socket)


async def measure(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    counts = COUNTS[: {"smallest": 2, "quick": 4}.get(options.length)]
    async for _, workers in crews(
        options, ["asyncpg"], alone=True, pool_size=5, max_overflow=0, pool_timeout=1
    ):
        for name, worker in workers.items():
            for kind, count in product(("sse", "socket"), counts):
                case: dict[str, Any] = {"kind": kind, "count": count}
                found = await worker.call(hold, **case)
                results.append({"contestant": name, **case, "value": found})
    return results


class Held(Exchange):
    """A client that stays until all of them leave."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._socket = kind == "socket"
        self.served, self.settled = False, asyncio.Event()

    async def receive(self) -> Message:
        if not self._body_read:
            self._body_read = True
            return {"type": "websocket.connect" if self._socket else "http.request"}
        await _leave.wait()
        return {"type": f"{'websocket' if self._socket else 'http'}.disconnect"}

    async def send(self, message: Message) -> None:
        await super().send(message)
        if READY in (message.get("text"), message.get("body", b"").decode()):
            self.served = True
            self.settled.set()


async def hold(stage: Stage, kind: str, count: int) -> str:
    """Open *count* connections; see who is served, what is pinned, what still works."""
    held: list[Held] = []
    tasks: list[asyncio.Task[None]] = []
    while len(held) < count and all(each.served for each in held[-1:]):
        held.append(Held(kind))
        tasks.append(await enter(stage, kind, held[-1]))
    served = sum(each.served for each in held)
    pinned = scalar(stage.setup.url, IDLE_IN_TRANSACTION)
    try:
        status = (await stage.request(WORKLOADS["read"])).status
    except Exception:
        status = 500
    _leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    _leave.clear()
    then = "" if status == 200 else f", then {status}"
    return f"{'all' if served == count else served} served, {pinned} pinned{then}"


async def enter(stage: Stage, kind: str, held: Held) -> asyncio.Task[None]:
    """Start a connection, and wait till it is served, or over."""
    scope = stage.scope("GET", f"/{kind}")
    if kind == "socket":
        scope |= {"type": "websocket", "scheme": "ws", "subprotocols": []}
    task = asyncio.ensure_future(stage.app(scope, held.receive, held.send))
    task.add_done_callback(lambda _: held.settled.set())
    await held.settled.wait()
    return task
