"""What each contestant promises, found out by trying: speed alone says little."""

import gc
from contextlib import suppress
from typing import Any, NamedTuple

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from starlette.background import BackgroundTask

from .contestants import Built, Setup
from .crew import crews
from .options import DIALECTS, Options
from .worker import Exchange, Message, Stage
from .workloads import IDLE_IN_TRANSACTION, Note, Steps, scalar, write

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
HANDLED = 418
EVENTS = "SELECT count(*) FROM event"


class Attempt(NamedTuple):
    status: int
    at_start: int  # how many events others see when the response starts
    at_end: int
    raised: bool


async def measure(options: Options) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    async for driver, workers in crews(options, DIALECTS, alone=True):
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
    def late(session: Any) -> Steps:
        yield from ()
        return JSONResponse({}, background=BackgroundTask(setup.play, write, session))

    async def handle(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "handled"}, HANDLED)

    for name, work in zip(ROUTES, (*WORKS, late), strict=True):
        built.app.add_api_route(f"/probe/{name}", built.wrap(work), methods=["POST"])
    built.app.add_exception_handler(IntegrityError, handle)


async def probe(stage: Stage) -> list[str]:
    """Try everything; give the names of those `PROBES` that turn out true."""
    gc.disable()  # it would hide for a moment what is left behind
    made = {name: await attempt(stage, name) for name in ROUTES}
    leaked = scalar(stage.setup.url, IDLE_IN_TRANSACTION)
    gc.enable()
    found = {
        "early": made["write"].at_start != 1,
        "raised": made["raises"].at_end > 0,
        "returned": made["returns"].at_end > 0,
        "failed": made["breaks"].status < 400,
        "unhandled": made["breaks"].status != HANDLED,
        "swallowed": made["swallows"].status < 400,
        "late": made["late"].at_end == 0 and not made["late"].raised,
        "leaked": leaked > 0,
    }
    return [name for name in PROBES if found[name]]


async def attempt(stage: Stage, name: str) -> Attempt:
    """Make the request; its status is 500 if the application raises."""
    exchange, url, at_start, raised = Exchange(), stage.setup.url, 0, False
    before = scalar(url, EVENTS)

    async def send(message: Message) -> None:
        nonlocal at_start
        if message["type"] == "http.response.start":
            at_start = scalar(url, EVENTS) - before
        await exchange.send(message)

    try:
        await stage.app(stage.scope("POST", f"/probe/{name}"), exchange.receive, send)
    except Exception:
        raised = True
    at_end = scalar(url, EVENTS) - before
    return Attempt(exchange.status or 500, at_start, at_end, raised)
