"""Who may ask for options of a transaction, who comes first, and who too late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from inspect import signature
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.websockets import WebSocket

from support.asgi import call
from support.flavours import Flavour, Observer, everywhere, only
from support.models import add_item, names
from support.websocket import Socket
from unitwork import (
    Database,
    DBSessionMiddleware,
    ReadOnlyError,
    TransactionOptions,
    UsageError,
    transactional,
)
from unitwork.fastapi import (
    answer_read_only,
    transaction_options,
)

pytestmark = pytest.mark.anyio

SERIALIZABLE = "SERIALIZABLE"
FEW = only("psycopg", "asyncpg")


def level(session: Session) -> Any:
    return session.execute(
        text("SELECT current_setting('transaction_isolation')")
    ).scalar_one()


SERIAL = transactional(isolation_level=SERIALIZABLE)


@FEW
async def test_of_an_endpoint_a_router_and_the_application(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware,
        db=flavour.db,
        options=TransactionOptions(isolation_level="REPEATABLE READ"),
    )
    inner = APIRouter(
        dependencies=[Depends(transaction_options(isolation_level=SERIALIZABLE))]
    )
    inner.get("/router")(flavour.endpoint(level))
    inner.get("/own")(
        transactional(isolation_level="READ COMMITTED")(flavour.endpoint(level))
    )
    outer = APIRouter()
    outer.include_router(inner, prefix="/in")
    app.include_router(outer, prefix="/out")
    app.get("/route")(SERIAL(flavour.endpoint(level)))
    app.get("/none")(flavour.endpoint(level))
    sub = FastAPI()
    sub.get("/route")(SERIAL(flavour.endpoint(level)))
    app.mount("/mounted", sub)

    paths = ["/out/in/router", "/out/in/own", "/route", "/none", "/mounted/route"]
    replies = [await call(app, "GET", path) for path in paths]

    assert [reply.json for reply in replies] == [
        "serializable",
        "read committed",
        "serializable",
        "repeatable read",
        "serializable",
    ]


@FEW
async def test_of_starlettes_functions_classes_and_methods(flavour: Flavour) -> None:
    async def answer(request: Request) -> Response:
        session = await flavour.db.session(request)
        return JSONResponse(await flavour.do(session, level))

    @SERIAL
    async def function(request: Request) -> Response:
        return await answer(request)

    @transactional(isolation_level=SERIALIZABLE)
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return await answer(request)

        @transactional(isolation_level="REPEATABLE READ")
        async def post(self, request: Request) -> Response:
            return await answer(request)

    app = Starlette(
        routes=[
            Route("/function", function),
            Route("/partial", partial(function)),
            Mount("/in", routes=[Route("/class", Endpoint)]),
        ]
    )
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    replies = [
        await call(app, "GET", "/function"),
        await call(app, "GET", "/partial"),
        await call(app, "GET", "/in/class"),
        await call(app, "POST", "/in/class"),
    ]

    assert [r.json for r in replies] == ["serializable"] * 3 + ["repeatable read"]


@FEW
async def test_head_has_those_of_get_where_get_answers_it(flavour: Flavour) -> None:
    class Endpoint(HTTPEndpoint):
        @SERIAL
        async def get(self, request: Request) -> Response:
            session = await flavour.db.session(request)
            return JSONResponse(await flavour.do(session, level))

    class Two(Endpoint):
        @transactional(isolation_level="REPEATABLE READ")
        async def head(self, request: Request) -> Response:
            return await self.get(request)

    app = Starlette(routes=[Route("/get", Endpoint), Route("/two", Two)])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    one, other = await call(app, "HEAD", "/get"), await call(app, "HEAD", "/two")

    assert (one.json, other.json) == ("serializable", "repeatable read")


@FEW
async def test_by_method_and_by_request(flavour: Flavour) -> None:
    def by_request(scope: Any) -> TransactionOptions | None:
        if scope["path"] == "/a":
            return TransactionOptions(isolation_level=SERIALIZABLE)
        return None

    found = []
    for options in (
        {"GET": TransactionOptions(isolation_level=SERIALIZABLE)},
        by_request,
    ):
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=flavour.db, options=options)
        for path in ("/a", "/b"):
            app.api_route(path, methods=["GET", "POST"])(flavour.endpoint(level))
        for method, path in (("GET", "/a"), ("POST", "/b")):
            found.append((await call(app, method, path)).json)

    assert found == ["serializable", "read committed"] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"get": TransactionOptions()},
        {"PSOT": TransactionOptions()},
        {"GET": 1},
        7,
        "read only",
    ],
)
def test_defaults_that_are_none_are_refused(options: Any) -> None:
    db = Database("sqlite://")
    with pytest.raises(UsageError, match="TransactionOptions"):
        DBSessionMiddleware(FastAPI(), db, options=options)


@only("sqlite3", "asyncpg")
async def test_a_function_that_gives_something_else_is_named(
    flavour: Flavour, observer: Observer
) -> None:
    def wrong(scope: Any) -> Any:
        return {"read_only": True}

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=wrong)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UsageError)
    assert "wrong" in str(reply.error)
    assert observer.names() == []


@FEW
async def test_of_the_messages_of_a_websocket(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.websocket("/")
    @transactional(isolation_level=SERIALIZABLE)
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.receive_text()
            found = await flavour.do(flavour.db.current, level)
            await socket.send_text(found)

    async with Socket(app, "/") as socket:
        found = [await socket.ask("?"), await socket.ask("?")]

    assert found == ["serializable"] * 2


def test_the_decorator_leaves_what_the_function_does_as_it_is() -> None:
    def endpoint(number: int = 7) -> int:
        "Documented."
        return number

    decorated = SERIAL(endpoint)

    assert decorated() == 7
    assert signature(decorated) == signature(endpoint)
    assert (decorated.__name__, decorated.__doc__) == ("endpoint", "Documented.")


async def test_a_decorated_generator_is_still_one() -> None:
    async def aitems() -> AsyncIterator[int]:
        yield 1

    def items() -> Iterator[int]:
        yield 1

    assert list(SERIAL(items)()) == [1]
    assert [x async for x in SERIAL(aitems)()] == [1]


@only("sqlite3", "asyncpg")
async def test_405_for_a_get_that_writes_if_somebody_wants_it(flavour: Flavour) -> None:
    app = FastAPI(exception_handlers={ReadOnlyError: answer_read_only})
    options = TransactionOptions(read_only=True)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=options)
    endpoint = flavour.endpoint(lambda session: add_item(session).id)
    app.api_route("/", methods=["GET", "HEAD", "POST"])(endpoint)

    got, posted = await call(app, "GET", "/"), await call(app, "POST", "/")

    assert (got.status, (await call(app, "HEAD", "/")).status) == (405, 405)
    assert dict(got.starts[0]["headers"])[b"allow"] == b""
    assert isinstance(posted.error, ReadOnlyError)


@everywhere
async def test_a_get_may_say_that_it_writes(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    options = {"GET": TransactionOptions(read_only=True)}
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=options)
    endpoint = flavour.endpoint(lambda session: add_item(session).id)
    app.get("/")(transactional(read_only=False)(endpoint))

    assert (await call(app, "GET", "/")).status == 200
    assert observer.names() == ["one"]


# Too late, or otherwise than around


@everywhere
async def test_an_option_that_comes_too_late_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    class Early:
        """Reads before anybody knows which endpoint it will be."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await flavour.do(flavour.db.current, names)
            await self.app(scope, receive, send)

    app = FastAPI()
    app.add_middleware(Early)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    for path, asked in (("/late", {"lock_timeout": 3}), ("/none", {"attempts": 2})):
        endpoint = flavour.endpoint(lambda session: add_item(session).id)
        app.post(path)(transactional(**asked)(endpoint))  # type: ignore[arg-type]  # one of each

    late, fine = await call(app, "POST", "/late"), await call(app, "POST", "/none")

    assert isinstance(late.error, UsageError)
    assert "lock_timeout=3 comes too late" in str(late.error)
    assert (fine.status, observer.names()) == (200, ["one"])


@FEW
async def test_a_router_that_asks_too_late_is_told_at_once(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    late = Depends(transaction_options(isolation_level=SERIALIZABLE))

    async def reads() -> None:
        await flavour.do(flavour.db.current, names)

    app.get("/", dependencies=[Depends(reads), late])(flavour.endpoint(names))

    reply = await call(app, "GET", "/")

    assert isinstance(reply.error, UsageError)
    assert "'SERIALIZABLE' comes too late" in str(reply.error)


@FEW
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_inside_may_ask_for_the_same_but_for_nothing_else(
    flavour: Flavour, nested: str
) -> None:
    async def same() -> Any:
        return await flavour.work(level, nested=nested, isolation_level=SERIALIZABLE)

    async def other() -> Any:
        asked = {"isolation_level": "REPEATABLE READ"}
        return await flavour.work(level, nested=nested, **asked)

    async def endpoint() -> list[Any]:
        found = [await same(), await flavour.do(flavour.db.current, level)]
        with pytest.raises(UsageError, match=r"REPEATABLE READ.*SERIALIZABLE"):
            await other()
        return found

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/")(transactional(isolation_level=SERIALIZABLE)(endpoint))

    assert (await call(app, "GET", "/")).json == ["serializable"] * 2


@FEW
async def test_a_block_of_its_own_asks_for_what_it_likes(flavour: Flavour) -> None:
    async def endpoint() -> list[Any]:
        outer = await flavour.do(flavour.db.current, level)
        inner = await flavour.work(level, isolation_level="REPEATABLE READ")
        return [outer, inner]

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/")(SERIAL(endpoint))

    assert (await call(app, "GET", "/")).json == ["serializable", "repeatable read"]
