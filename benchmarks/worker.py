"""A contestant in a process of its own, which does what it reads from a pipe.

Each line in is a call of a function of this package, as JSON; each line out its result.
The function's first argument is the `Stage`.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, NamedTuple

from sqlalchemy import Engine

from . import workloads
from .asgi import App, Exchange, State, http, running
from .contestants import Setup, build, setup_for
from .schema import begin_at_once
from .workloads import WORKLOADS, Workload

SECTIONS = ("guarantees", "roundtrips", "overload", "idle", "memory")
"""Those with routes of their own, which lie behind those of the workloads."""


class Stage(NamedTuple):
    """A contestant that is up."""

    name: str
    app: App
    state: State
    setup: Setup

    async def request(self, workload: Workload) -> Exchange:
        return await self.send(workload.method, workload.path)

    async def send(self, method: str, path: str) -> Exchange:
        exchange = Exchange()
        scope = http(method, path, self.state)
        await self.app(scope, exchange.receive, exchange.send)
        return exchange


async def main(name: str, driver: str, url: str, options: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contestant prints must not get among the answers
    setup = setup_for(driver, url, json.loads(options))
    if setup.url.startswith("sqlite") and not name.startswith("unitwork"):
        begin_at_once(Engine)
    built = build(name, setup)
    workloads.add_routes(built.app, built.wrap, is_async=setup.is_async)
    for section in SECTIONS:
        import_module(f".{section}", __package__).add_routes(built, setup)
    loop = asyncio.get_running_loop()
    async with running(built.app) as state:
        stage = Stage(name, built.app, state, setup)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            answer = await called(stage, json.loads(line))
            print(json.dumps(answer), file=answers, flush=True)


async def called(stage: Stage, call: dict[str, Any]) -> dict[str, Any]:
    module, _, function = call["function"].rpartition(".")
    run: Callable[..., Awaitable[Any]]
    run = getattr(import_module(f".{module}", __package__), function)
    gc.collect()
    try:
        return {"value": await run(stage, **call["arguments"])}
    except Exception:
        return {"error": traceback.format_exc()}


async def check(stage: Stage, workload: str) -> dict[str, Any]:
    """Make one request; give its status and body."""
    exchange = await stage.request(WORKLOADS[workload])
    return {"status": exchange.status, "body": exchange.body.decode()}


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
