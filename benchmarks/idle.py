"""Connections that stay open and idle, WebSocket or SSE: whose database is pinned?"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from itertools import product
from typing import Any

from fastapi import WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy.ext.asyncio import AsyncSession

from .asgi import REQUEST, Exchange, Message, http
from .contestants import Built, Setup
from .crew import Crew, Worker, WorkerError, chosen
from .options import Options, database
from .progress import Progress
from .schema import from_outside, idle_in_transaction
from .worker import Stage
from .workloads import WORKLOADS, AsyncWork

DRIVER = "asyncpg"
POOL = 5
KINDS = ("sse", "socket")
COUNTS = (1, 10, 100, 1_000, 10_000)
WAVE = 50
"""How many connect at the same time."""
_leave = asyncio.Event()


async def events() -> AsyncIterator[bytes]:
    yield b"data: ready\n\n"
    await _leave.wait()


async def subscribe(session: AsyncSession) -> object:
    await AsyncWork.read(session)
    return StreamingResponse(events(), media_type="text/event-stream")


def socket_with(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """A WebSocket that does what *endpoint* does, and then waits for a message."""

    async def socket(websocket: WebSocket, **given: Any) -> None:
        await websocket.accept()
        await endpoint(**given)
        await websocket.send_text("ready")
        await websocket.receive()

    own = inspect.Parameter("websocket", inspect.Parameter.KEYWORD_ONLY)
    parameters = [
        own.replace(annotation=WebSocket),
        *(
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(endpoint).parameters.values()
        ),
    ]
    vars(socket)["__signature__"] = inspect.Signature(parameters)
    return socket


def add_routes(built: Built, setup: Setup) -> None:
    if setup.is_async:
        built.app.add_api_route("/sse", built.wrap(subscribe))
        socket = socket_with(built.wrap(AsyncWork.read))
        built.app.add_api_websocket_route("/socket", socket)


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    if DRIVER not in options.drivers:
        return {"results": results, "missing": missing}
    who = chosen(options.contestants, "async", standards_apart=False)
    who = [one for one in who if one.name != "bare"]
    counts = COUNTS[:2] if options.smallest else COUNTS[:4] if options.quick else COUNTS
    progress = Progress("idle connections", len(who) * len(counts) * 2)
    pool = {"pool_size": POOL, "max_overflow": 0, "pool_timeout": 1}
    with database(DRIVER) as url:
        for contestant in who:
            async with Crew([contestant], DRIVER, url, **pool) as crew:
                missing |= crew.missing
                for worker in crew.workers.values():
                    for kind, count in product(KINDS, counts):
                        progress.step(f"{contestant.name}, {count:,} of {kind}")
                        results.append(await held_by(worker, kind, count))
    progress.end()
    return {"results": results, "missing": missing}


async def held_by(worker: Worker, kind: str, count: int) -> dict[str, Any]:
    found = {"contestant": worker.name, "kind": kind, "count": count}
    try:
        return {**found, **await worker.call(hold, kind=kind, count=count)}
    except WorkerError as error:
        return {**found, "error": str(error).strip().splitlines()[-1]}


class Held(Exchange):
    """A client that stays until everybody leaves."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._first: Message = {"type": "websocket.connect"}
        if kind == "sse":
            self._first = {"type": "http.request", "body": b"", "more_body": False}
        self.ready = asyncio.Event()

    async def receive(self) -> Message:
        first, self._first = self._first, {"type": "gone"}
        if first["type"] != "gone":
            return first
        await _leave.wait()
        kind = "http" if self.messages[0]["type"].startswith("http") else "websocket"
        return {"type": f"{kind}.disconnect", "code": 1000}

    async def send(self, message: Message) -> None:
        await super().send(message)
        if message.get("text") == "ready" or message.get("body") == b"data: ready\n\n":
            self.ready.set()


async def hold(stage: Stage, kind: str, count: int) -> dict[str, Any]:
    """Open *count* connections; look who was served, what is pinned, what works."""
    held: list[Held] = []
    tasks: list[asyncio.Task[None]] = []
    served = 0
    while len(held) < count:
        wave = [Held(kind) for _ in range(min(WAVE, count - len(held)))]
        opened = await asyncio.gather(*(enter(stage, kind, each) for each in wave))
        held += wave
        tasks += opened
        served += (more := sum(each.ready.is_set() for each in wave))
        if not more:
            break  # nor would the others be served
    pinned = in_use(stage.setup.url)
    try:
        status = (await stage.request(WORKLOADS["read"])).status
    except Exception:
        status = 500
    _leave.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    _leave.clear()
    return {"served": served, "pinned": pinned, "others": status}


async def enter(stage: Stage, kind: str, held: Held) -> asyncio.Task[None]:
    """Start a connection, and wait till it is served, or over."""
    running = stage.app(scope(kind, stage), held.receive, held.send)
    task = asyncio.ensure_future(running)
    ready = asyncio.ensure_future(held.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    return task


def scope(kind: str, stage: Stage) -> dict[str, Any]:
    if kind == "sse":
        return http("GET", "/sse", stage.state)
    return {
        **REQUEST,
        "type": "websocket",
        "scheme": "ws",
        "path": "/socket",
        "raw_path": b"/socket",
        "subprotocols": [],
        "state": stage.state.copy(),
    }


def in_use(url: str) -> int:
    """How many connections of the database are in a transaction."""
    engine = from_outside(url)
    try:
        return idle_in_transaction(engine)
    finally:
        engine.dispose()
