"""Several middlewares in one application."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import Request

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import add_item, add_orphan
from support.pages import statements
from support.several import Two, add
from unitwork import DBSessionMiddleware, MissingSessionError, UnitOfWork, current_unit
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

pairs = only("sqlite3", "psycopg", "asyncpg")
"""The first database; the second is an SQLite file, of either colour."""


@pairs
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_two_middlewares_for_two_databases(
    two: Two, order: tuple[int, int]
) -> None:
    app = FastAPI()
    for index in order:
        database = (two.first.db, two.second.db)[index]
        app.add_middleware(
            DBSessionMiddleware, db=database, state_attribute=f"db{index}"
        )

    @app.post("/")
    async def endpoint(request: Request, fails: bool = False) -> None:
        await two.do_both(add, add)
        assert request.state.db0 is two.first.db.current
        assert request.state.db1 is two.second.db.current
        if fails:
            raise HTTPException(409)

    assert (await call(app, "POST", "/?fails=yes")).status == 409
    assert two.seen() == ([], [])
    reply = await call(app, "POST", "/")
    assert (reply.status, reply.error) == (200, None)
    assert two.seen() == (["one"], ["one"])


@pairs
@pytest.mark.parametrize(
    ("bodies", "status", "stored"),
    [((add_orphan, add), 409, ([], [])), ((add, add_orphan), 500, (["one"], []))],
)
async def test_of_two_middlewares_the_inner_one_commits_first(
    two: Two,
    bodies: tuple[Any, Any],
    status: int,
    stored: tuple[list[str], list[str]],
) -> None:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=two.first.db)
    app.add_middleware(DBSessionMiddleware, db=two.second.db)

    @app.post("/")
    async def endpoint() -> None:
        await two.do_both(*bodies)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, reply.complete) == (status, None, True)
    assert (b"partial-commit" in reply.body) is (status == 500)
    assert two.seen() == stored


async def test_the_same_database_in_a_mounted_application_is_one_unit(
    flavour: Flavour, observer: Observer
) -> None:
    units: list[UnitOfWork] = []
    inner, outer = FastAPI(), FastAPI()
    inner.add_middleware(DBSessionMiddleware, db=flavour.db)
    outer.mount("/inner", inner)

    @outer.middleware("http")
    async def note(request: Request, call_next: Any) -> Any:
        units.append(current_unit())
        return await call_next(request)

    outer.add_middleware(DBSessionMiddleware, db=flavour.db)

    @inner.post("/")
    async def endpoint() -> None:
        units.append(current_unit())
        await flavour.do(flavour.db.current, add)

    with statements(flavour.db.engine) as sent:
        reply = await call(outer, "POST", "/inner/")

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert units[0] is units[1]
    assert sent.count("COMMIT") == 1
    assert observer.names() == ["one"]


async def test_the_same_middleware_twice_is_one_unit(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    with statements(flavour.db.engine) as sent:
        reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, sent.count("COMMIT")) == (200, True, 1)
    assert observer.names() == ["one"]


@pairs
async def test_a_mounted_application_may_have_one_more_database(two: Two) -> None:
    inner, outer = FastAPI(), FastAPI()
    outer.add_middleware(DBSessionMiddleware, db=two.first.db)
    inner.add_middleware(DBSessionMiddleware, db=two.second.db)
    outer.mount("/inner", inner)

    @inner.post("/")
    async def endpoint() -> None:
        await two.do_both(add, add)

    assert (await call(outer, "POST", "/inner/")).status == 200
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_a_mounted_application_may_share_one_of_its_two_databases(
    two: Two,
) -> None:
    inner, outer = FastAPI(), FastAPI()
    outer.add_middleware(DBSessionMiddleware, db=two.first.db)
    inner.add_middleware(DBSessionMiddleware, db=[two.first.db, two.second.db])
    outer.mount("/inner", inner)

    @inner.post("/")
    async def endpoint(request: Request) -> None:
        await two.do_both(add, add)
        found = [request.state.db, request.state.default, two.first.db.current]
        found.append(await two.first.db.session(request))
        assert found == [await two.first.db.session()] * 4
        assert request.state.second is two.second.db.current

    with statements(two.first.db.engine) as sent:
        reply = await call(outer, "POST", "/inner/")

    assert (reply.status, reply.error, sent.count("COMMIT")) == (200, None, 1)
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_a_database_without_a_middleware_is_missed(two: Two) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=two.first.db)

    @app.post("/")
    async def endpoint() -> None:
        await two.second.db.session()

    reply = await call(app, "POST", "/")

    assert type(reply.error) is MissingSessionError
    assert "'second'" in str(reply.error)
