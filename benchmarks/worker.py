"""A contestant in a process of its own, which runs the calls that it reads from a pipe.

Each line in is a call of a function of this package, as JSON; each line out its result.
The function's first argument is the `Stage`.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from importlib import import_module
from typing import Any

from sqlalchemy import Engine

import unitwork

from .asgi import Stage, running
from .contestants import build, setup_for
from .workloads import WORKLOADS, begin_immediate

SECTIONS = ("guarantees", "traffic", "idle")
"""Those with routes of their own."""


async def main(name: str, driver: str, url: str, options: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a contestant prints must not get among the answers
    setup = setup_for(driver, url, json.loads(options))
    if setup.url.startswith("sqlite") and not name.startswith(("unitwork", "before")):
        begin_immediate(Engine)
    built = build(name, setup)
    for section in SECTIONS:
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
    return [exchange.status, exchange.body.decode()]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
