"""What each contestant promises, found out by trying: a fast lie is no rival."""

import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask

from .asgi import Exchange, Message, http
from .contestants import Built, Setup
from .crew import Crew, chosen
from .options import Options, database
from .progress import Progress
from .registry import DIALECTS, DRIVERS
from .schema import Event, Note, from_outside, idle_in_transaction
from .worker import Stage

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
"""What is found out, in the words of the table."""
HANDLED = 418


async def measure(options: Options) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for driver in options.drivers:
        if not DIALECTS[driver].startswith("postgresql"):
            continue
        who = chosen(options.contestants, DRIVERS[driver], standards_apart=False)
        who = [one for one in who if one.name != "bare"]
        with database(driver) as url:
            async with Crew(who, driver, url) as crew:
                missing |= crew.missing
                progress = Progress(f"guarantees, {driver}", len(crew.workers))
                for name, worker in crew.workers.items():
                    progress.step(name)
                    found = {"driver": driver, "contestant": name}
                    results.append({**found, "faults": await worker.call(probe)})
                    await worker.stop()  # what it has leaked is not the next one's
                progress.end()
    return {"results": results, "missing": missing}


class AsyncProbes:
    """With an `AsyncSession`."""

    @staticmethod
    async def write(session: Any) -> object:
        session.add(Event(name="probe"))
        await session.flush()
        return {}

    @staticmethod
    async def raises(session: Any) -> object:
        await AsyncProbes.write(session)
        raise HTTPException(400)

    @staticmethod
    async def refuses(session: Any) -> object:
        await AsyncProbes.write(session)
        return JSONResponse({}, 409)

    @staticmethod
    async def breaks(session: Any) -> object:
        session.add(Note(item_id=0))
        await session.flush()
        return {}

    @staticmethod
    async def swallows(session: Any) -> object:
        await AsyncProbes.write(session)
        with suppress(DBAPIError):
            await session.execute(text("SELECT 1 / 0"))
        return {}

    @staticmethod
    async def goes_on(session: Any) -> object:
        return JSONResponse({}, background=BackgroundTask(AsyncProbes.write, session))


class SyncProbes:
    """With a `Session`, in a thread."""

    @staticmethod
    def write(session: Session) -> object:
        session.add(Event(name="probe"))
        session.flush()
        return {}

    @staticmethod
    def raises(session: Session) -> object:
        SyncProbes.write(session)
        raise HTTPException(400)

    @staticmethod
    def refuses(session: Session) -> object:
        SyncProbes.write(session)
        return JSONResponse({}, 409)

    @staticmethod
    def breaks(session: Session) -> object:
        session.add(Note(item_id=0))
        session.flush()
        return {}

    @staticmethod
    def swallows(session: Session) -> object:
        SyncProbes.write(session)
        with suppress(DBAPIError):
            session.execute(text("SELECT 1 / 0"))
        return {}

    @staticmethod
    def goes_on(session: Session) -> object:
        return JSONResponse({}, background=BackgroundTask(SyncProbes.write, session))


ROUTES = ("write", "raises", "refuses", "breaks", "swallows", "goes_on")


def add_routes(built: Built, setup: Setup) -> None:
    probes = AsyncProbes if setup.is_async else SyncProbes
    for name in ROUTES:
        endpoint = built.wrap(getattr(probes, name))
        built.app.add_api_route(f"/probe/{name}", endpoint, methods=["POST"])
    handle(built.app)


def handle(app: FastAPI) -> None:
    """Let the application have a handler of its own for what COMMIT raises."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "handled"}, HANDLED)

    app.add_exception_handler(IntegrityError, answer)


def events(engine: Engine) -> int:
    """How many there are, as others see it."""
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(Event)) or 0


async def probe(stage: Stage) -> list[str]:
    """Try everything; give the names of those `PROBES` that turn out true."""
    outside = from_outside(stage.setup.url)
    gc.disable()  # it would hide for a moment what is left behind
    try:
        found = {
            "early": await answers_early(stage, outside),
            "raised": await stores(stage, outside, "raises"),
            "returned": await stores(stage, outside, "refuses"),
            "swallowed": await attempt(stage, "swallows") < 400,
            "late": await loses(stage, outside),
        }
        status = await attempt(stage, "breaks")
        found["failed"] = status < 400
        found["unhandled"] = status != HANDLED
        found["leaked"] = idle_in_transaction(outside) > 0
    finally:
        gc.enable()
        outside.dispose()
    return [name for name in PROBES if found[name]]


async def attempt(
    stage: Stage, name: str, see: Callable[[Message], None] | None = None
) -> int:
    """Make the request; give its status, 500 if the application raises."""
    exchange = Seen(see)
    scope = http("POST", f"/probe/{name}", stage.state)
    try:
        await stage.app(scope, exchange.receive, exchange.send)
    except Exception:
        return exchange.status or 500
    return exchange.status


class Seen(Exchange):
    """Shows each message as it comes."""

    def __init__(self, see: Callable[[Message], None] | None) -> None:
        super().__init__()
        self._see = see

    async def send(self, message: Message) -> None:
        if self._see is not None:
            self._see(message)
        await super().send(message)


async def answers_early(stage: Stage, outside: Engine) -> bool:
    before = events(outside)
    seen: list[int] = []

    def look(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(events(outside))

    await attempt(stage, "write", look)
    return seen != [before + 1]


async def stores(stage: Stage, outside: Engine, name: str) -> bool:
    before = events(outside)
    await attempt(stage, name)
    return events(outside) > before


async def loses(stage: Stage, outside: Engine) -> bool:
    """Whether a background task could write, and nothing came of it."""
    before = events(outside)
    scope = http("POST", "/probe/goes_on", stage.state)
    exchange = Exchange()
    try:
        await stage.app(scope, exchange.receive, exchange.send)
    except Exception:
        return False  # that was no silence
    return events(outside) == before
