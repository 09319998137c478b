"""P8: a request that leaves the database alone costs nothing: counted, not timed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import PlainTextResponse
from sqlalchemy import event
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from support.asgi import ASGIApp, Message, Reply, call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, only
from support.models import add_item
from unitwork import DBSessionMiddleware, UnitOfWork, current_unit
from unitwork._execution import async_runner
from unitwork._session.database_core import DatabaseCore

pytestmark = pytest.mark.anyio

TASKS_OF_AN_ENDING = {"aiosqlite": 1, "psycopg-async": 1}
"""Others need none: a cancellation is held back in the task of the request."""
NOTHING: Counter[str] = Counter()


def new_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> asyncio.Task[Any]:
    return asyncio.Task(work, loop=loop, **options)


@pytest.fixture
async def spent(
    flavour: Flavour, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Counter[str]]:
    """Count, at the boundaries, what is spent from here on; connections are not new."""
    counted: Counter[str] = Counter()

    def counting(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            counted[what] += 1
            return call(*args, **kwargs)

        return count

    def checkout(*args: object) -> None:
        counted["connection"] += 1

    event.listen(flavour.sync_engine, "checkout", checkout)
    loop = type(asyncio.get_running_loop())
    for owner, name, what in [
        (DatabaseCore, "open_session", "session"),
        (to_thread, "run_sync", "thread"),
        (loop, "run_in_executor", "thread"),
        (async_runner, "run_in_worker_thread", "thread"),
    ]:
        monkeypatch.setattr(owner, name, counting(what, getattr(owner, name)))
    asyncio.get_running_loop().set_task_factory(counting("task", new_task))
    yield counted
    asyncio.get_running_loop().set_task_factory(None)
    event.remove(flavour.sync_engine, "checkout", checkout)


async def measure(spent: Counter[str], app: ASGIApp, **scope: Any) -> Reply:
    """Make a request, and count nothing but that."""
    spent.clear()
    return await call(app, "POST", "/", **scope)


async def pass_on(scope: Message, receive: Any, send: Any) -> None:
    await PlainTextResponse("pong")(scope, receive, send)


async def test_a_bare_request_spends_nothing(
    flavour: Flavour, spent: Counter[str]
) -> None:
    reply = await measure(spent, DBSessionMiddleware(pass_on, flavour.db))

    assert (reply.body, spent) == (b"pong", NOTHING)


async def test_a_failure_without_a_session_spends_nothing(
    flavour: Flavour, spent: Counter[str]
) -> None:
    async def fail(scope: Message, receive: Any, send: Any) -> None:
        raise LookupError

    reply = await measure(spent, DBSessionMiddleware(fail, flavour.db))

    assert (type(reply.error), spent) == (LookupError, NOTHING)


async def spent_by(
    app: Any, method: str, path: str, status: int, spent: Counter[str]
) -> Counter[str]:
    """What our middleware adds to a request of the same *app*."""
    for middleware in ([], [DBSessionMiddleware]):
        without = Counter(spent)
        app.middleware_stack = None
        for kind in middleware:
            app.add_middleware(kind, db=app.state.database)
        spent.clear()
        assert (await call(app, method, path)).status == status
    return spent - without


@pytest.fixture
def app(flavour: Flavour, tmp_path: Path) -> FastAPI:
    """An application without our middleware; some of it has its own costs."""
    app = FastAPI()
    app.state.database = flavour.db
    (tmp_path / "page.txt").write_text("static")
    app.mount("/static", StaticFiles(directory=tmp_path))

    @app.get("/async")
    async def async_endpoint() -> str:
        return "pong"

    @app.post("/async")
    async def another(request: Request) -> str:
        return request.method

    @app.get("/sync")
    def endpoint() -> str:
        return "pong"

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(403)

    return app


@only("sqlite3", "aiosqlite")  # no driver has any part in this
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/async", 200),
        ("POST", "/async", 200),
        ("GET", "/sync", 200),
        ("GET", "/refused", 403),
        ("GET", "/nowhere", 404),
        ("DELETE", "/async", 405),
        ("GET", "/static/page.txt", 200),
        ("GET", "/static/nothing.txt", 404),
        ("GET", "/openapi.json", 200),
    ],
)
async def test_a_request_costs_what_it_costs_without_us(
    app: FastAPI,
    spent: Counter[str],
    method: str,
    path: str,
    status: int,
) -> None:
    assert await spent_by(app, method, path, status, spent) == NOTHING


async def test_to_ask_for_the_unit_makes_no_session(
    flavour: Flavour, spent: Counter[str]
) -> None:
    async def ask(scope: Message, receive: Any, send: Any) -> None:
        assert isinstance(current_unit(), UnitOfWork)
        current_unit().rollback_only()
        await pass_on(scope, receive, send)

    await measure(spent, DBSessionMiddleware(ask, flavour.db))

    assert spent == NOTHING


async def test_other_attributes_of_the_state_make_no_session(
    flavour: Flavour, spent: Counter[str]
) -> None:
    async def look(scope: Message, receive: Any, send: Any) -> None:
        state = Request(scope).state
        state.answer = scope["state"]["question"] * 2
        assert not hasattr(state, "elsewhere")
        await PlainTextResponse(str(state.answer))(scope, receive, send)

    app = DBSessionMiddleware(look, flavour.db)
    reply = await measure(spent, app, state={"question": 21})

    assert (reply.body, spent) == (b"42", NOTHING)


async def test_a_session_that_is_injected_but_not_used_checks_nothing_out(
    flavour: Flavour, spent: Counter[str]
) -> None:
    def stay_away(session: Any) -> Response:
        return PlainTextResponse("unused")

    injected = serve_fastapi(flavour, stay_away)
    reply = await measure(spent, injected)

    assert reply.status == 200
    assert (spent["session"], spent["connection"], spent["task"]) == (1, 0, 0)
    assert spent["thread"] == (0 if flavour.is_async else 1)  # the endpoint itself


async def test_a_dependency_that_is_injected_for_each_route_makes_one_session(
    flavour: Flavour, spent: Counter[str]
) -> None:
    app = FastAPI(dependencies=[Depends(flavour.db.session)])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint(request: Request) -> Response:
        assert request.state.db is flavour.db.current
        return PlainTextResponse("pong")

    await measure(spent, app)

    assert spent == {"session": 1}


async def test_one_statement_costs_one_connection_and_one_ending(
    flavour: Flavour, spent: Counter[str]
) -> None:
    app = serve_fastapi(flavour, lambda session: add_item(session).id)
    reply = await measure(spent, app)

    assert reply.status == 200
    assert (spent["session"], spent["connection"]) == (1, 1)
    assert spent["task"] == TASKS_OF_AN_ENDING.get(flavour.name, 0)


async def test_the_startup_costs_nothing(flavour: Flavour, spent: Counter[str]) -> None:
    until_now: list[Counter[str]] = []

    async def serve(scope: Message, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        until_now.append(spent.copy())

    given = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Message:
        return {"type": next(given)}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    app = DBSessionMiddleware(serve, flavour.db)
    spent.clear()
    await app({"type": "lifespan", "state": {}}, receive, send)

    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert until_now == [NOTHING]
