"""A contestant in a process of its own, which runs the calls that it reads from a pipe.

Each line in is a call of a function of this package, as JSON; each line out its result.
The function's first argument is the `Stage`. Requests are raw ASGI calls.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any, NamedTuple

import uvicorn
from sqlalchemy import Engine
from uvicorn.lifespan.on import LifespanOn

import unitwork

from .contestants import Setup, build, setup_for
from .workloads import WORKLOADS, Workload, begin_immediate

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


@asynccontextmanager
async def running(name: str, app: Any, setup: Setup) -> AsyncIterator[Stage]:
    """Start *app* up, and shut it down at the end."""
    lifespan = LifespanOn(uvicorn.Config(app, log_config=None))
    await lifespan.startup()
    if lifespan.should_exit:
        raise RuntimeError(f"{name} does not start up")
    yield Stage(name, app, lifespan.state, setup)
    await lifespan.shutdown()


async def main(name: str, driver: str, url: str, options: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contestant prints must not get among the answers
    setup = setup_for(driver, url, json.loads(options))
    if setup.url.startswith("sqlite") and not name.startswith(("unitwork", "before")):
        begin_immediate(Engine)
    built = build(name, setup)
    for section in ("guarantees", "traffic", "idle"):  # they have their own routes
        import_module(f".{section}", __package__).add_routes(built, setup)
    loop = asyncio.get_running_loop()
    async with running(name, built.app, setup) as stage:
        gc.freeze()
        while call := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await called(stage, call)), file=answers, flush=True)


async def called(stage: Stage, call: str) -> dict[str, Any]:
    module, function, arguments = json.loads(call)
    gc.collect()
    try:
        run = getattr(import_module(module), function)
        return {"value": await run(stage, **arguments)}
    except Exception:
        return {"error": traceback.format_exc()}


async def ready(stage: Stage) -> str:
    """Give the folder of the unitwork that is used, as soon as all is up."""
    return str(unitwork.__path__[0])


async def check(stage: Stage, load: str) -> list[Any]:
    """Make one request; give its status and body."""
    exchange = await stage.request(WORKLOADS[load])
    bodies = [message.get("body", b"") for message in exchange.messages]
    return [exchange.status, b"".join(bodies).decode()]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
