"""What each contestant promises, found out by trying: speed alone says little."""

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.background import BackgroundTask

from . import workloads
from .contestants import Built, Setup
from .crew import crews
from .options import Options
from .registry import POSTGRESQL
from .worker import Exchange, Message, Stage
from .workloads import Note, Steps, write

PROBES = {
    "early": "answers before COMMIT",
    "raised": "commits what a raised HTTPException(400) leaves behind",
    "returned": "commits what a returned 409 leaves behind",
    "failed": "says 200 although COMMIT failed",
    "unhandled": "a failed COMMIT does not reach the exception handlers",
    "swallowed": "says 200 although the server rolled back",
    "late": "loses in silence what a background task writes",
    "leaked": "leaves connections idle in transaction",
}
"""What is found out, as the table says it."""
HANDLED = 418
EVENTS = "SELECT count(*) FROM event"
Attempt = tuple[int, int, int, bool]
"""Its status, what others see of it when it starts and ends, and whether it raised."""


async def measure(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    async for driver, workers in crews(options, POSTGRESQL, alone=True):
        for name, worker in workers.items():
            faults = ", ".join(await worker.call(probe)) or "nothing"
            results.append({"driver": driver, "contestant": name, "value": faults})
    return results


def raises(session: Any) -> Steps:
    yield from write(session)
    raise HTTPException(400)


def returns(session: Any) -> Steps:
    yield from write(session)
    return JSONResponse({}, 409)


def breaks(session: Any) -> Steps:
    session.add(Note(item_id=0))
    yield session.flush()
    return {}


def swallows(session: Any) -> Steps:
    yield from write(session)
    with suppress(DBAPIError):
        yield session.execute(text("SELECT 1 / 0"))
    return {}


WORKS = (write, raises, returns, swallows, breaks)
ROUTES = (*(work.__name__ for work in WORKS), "late")


def add_routes(built: Built, setup: Setup) -> None:
    run: Callable[..., Any] = workloads.play_in_thread
    if setup.is_async:
        run = workloads.play

    def late(session: Any) -> Steps:
        yield from ()
        return JSONResponse({}, background=BackgroundTask(run, write, session))

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "handled"}, HANDLED)

    for name, work in zip(ROUTES, (*WORKS, late), strict=True):
        built.app.add_api_route(f"/probe/{name}", built.wrap(work), methods=["POST"])
    built.app.add_exception_handler(IntegrityError, handle)


async def probe(stage: Stage) -> list[str]:
    """Try everything; give the names of those `PROBES` that turn out true."""
    engine = workloads.engine_for(stage.setup.url)
    gc.disable()  # it would hide for a moment what is left behind
    try:
        made = {name: await attempt(stage, engine, name) for name in ROUTES}
        found = {
            "early": made["write"][1] != 1,
            "raised": made["raises"][2] > 0,
            "returned": made["returns"][2] > 0,
            "failed": made["breaks"][0] < 400,
            "unhandled": made["breaks"][0] != HANDLED,
            "swallowed": made["swallows"][0] < 400,
            "late": made["late"][2:] == (0, False),
            "leaked": workloads.scalar(engine, workloads.IDLE_IN_TRANSACTION) > 0,
        }
    finally:
        gc.enable()
        engine.dispose()
    return [name for name in PROBES if found[name]]


async def attempt(stage: Stage, engine: Engine, name: str) -> Attempt:
    """Make the request; its status is 500 if the application raises."""
    exchange, before, raised = Exchange(), workloads.scalar(engine, EVENTS), False
    at_start: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            at_start.append(workloads.scalar(engine, EVENTS) - before)
        await exchange.send(message)

    try:
        await stage.app(stage.scope("POST", f"/probe/{name}"), exchange.receive, send)
    except Exception:
        raised = True
    return (
        exchange.status or 500,
        sum(at_start),
        workloads.scalar(engine, EVENTS) - before,
        raised,
    )
