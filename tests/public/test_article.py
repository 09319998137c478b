"""What the article promises works as it is written there, whatever lies around."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import (
    FileResponse,
    PlainTextResponse,
    RedirectResponse,
    StreamingResponse,
)
from fastapi.staticfiles import StaticFiles
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request

from support.asgi import Message, call
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import BlockingSessionWarning, Database, DBSessionMiddleware

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite", "asyncpg")


def application(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


# The article's own words


def get_session_from_middleware(request: Request) -> Any:
    return request.state.db


@only(*SYNC)
async def test_a_sync_session_by_the_articles_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    given = Depends(get_session_from_middleware)

    @app.post("/items/")
    def create_item(name: str, session: Session = given) -> dict[str, Any]:
        item = Item(name=name)
        session.add(item)
        session.flush()
        return {"id": item.id, "name": item.name}

    reply = await call(app, "POST", "/items/?name=lamp")

    assert (reply.status, reply.json) == (200, {"id": 1, "name": "lamp"})
    assert observer.names() == ["lamp"]


@only(*ASYNC)
async def test_an_async_session_by_the_articles_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    given = Depends(get_session_from_middleware)

    @app.post("/items/")
    async def create_item(name: str, session: AsyncSession = given) -> dict[str, Any]:
        item = Item(name=name)
        session.add(item)
        await session.flush()
        return {"id": item.id, "name": item.name}

    reply = await call(app, "POST", "/items/?name=lamp")

    assert (reply.status, reply.json) == (200, {"id": 1, "name": "lamp"})
    assert observer.names() == ["lamp"]


@only(*ASYNC)
async def test_the_session_of_the_state_without_any_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/items/")
    async def create_item(request: Request) -> None:
        request.state.db.add(Item(name="lamp"))

    assert (await call(app, "POST", "/items/")).status == 200
    assert observer.names() == ["lamp"]


@only(*SYNC)
async def test_a_sync_session_in_async_endpoints_works_and_warns_once(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)
    given = Depends(get_session_from_middleware)

    @app.post("/")
    async def create_item(name: str, session: Session = given) -> None:
        add_item(session, name)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("one", "two", "three"):
            assert (await call(app, "POST", f"/?name={name}")).status == 200

    assert [warning.category for warning in caught] == [BlockingSessionWarning]
    assert caught[0].filename.endswith("models.py")  # where the session is used
    assert observer.names() == ["one", "two", "three"]


@only(*SYNC)
async def test_a_sync_session_in_async_endpoints_rolls_back_too(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/")
    async def create_item(request: Request) -> None:
        add_item(request.state.db)
        raise LookupError

    with pytest.warns(BlockingSessionWarning, match="event loop's own thread"):
        reply = await call(app, "POST", "/")

    assert (reply.status, type(reply.error)) == (500, LookupError)
    assert observer.names() == []


@only(*SYNC)
async def test_a_sync_session_in_plain_endpoints_does_not_warn(
    flavour: Flavour,
) -> None:
    app = application(flavour)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reply = await call(app, "POST", "/")

    assert (reply.status, reply.error) == (200, None)


def test_the_article_by_the_test_client(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/items.db")
    Item.metadata.create_all(db.engine)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    injected = Depends(db.session)

    @app.post("/items/")
    def create_item(name: str, request: Request) -> None:
        request.state.db.add(Item(name=name))

    @app.get("/items/")
    def list_items(session: Session = injected) -> list[str]:
        return names(session)

    with TestClient(app) as client:
        for name in ("one", "two"):
            assert client.post(f"/items/?name={name}").status_code == 200
        assert client.get("/items/").json() == ["one", "two"]


# The state of the request


class Outside:
    """A pure ASGI middleware that looks at the state, before and after."""

    def __init__(self, app: Any, seen: list[Any]) -> None:
        self._app = app
        self._seen = seen

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        async def look_and_send(message: Message) -> None:
            self._seen.append((message["type"], scope["state"].get("user")))
            await send(message)

        await self._app(scope, receive, look_and_send)
        self._seen.append(("the end", scope["state"].get("user")))


@one_of_each
async def test_what_the_endpoint_notes_in_the_state_is_seen_by_pure_asgi_middleware(
    flavour: Flavour,
) -> None:
    seen: list[Any] = []
    app = application(flavour)
    app.add_middleware(Outside, seen=seen)

    @app.get("/")
    async def endpoint(request: Request) -> None:
        await flavour.do(request.state.db, names)
        request.state.user = "ada"

    assert (await call(app, "GET", "/")).status == 200
    assert seen == [
        ("http.response.start", "ada"),
        ("http.response.body", "ada"),
        ("the end", "ada"),
    ]


@one_of_each
async def test_what_the_endpoint_notes_in_the_state_is_seen_by_http_middleware(
    flavour: Flavour,
) -> None:
    seen: list[Any] = []
    app = application(flavour)

    @app.middleware("http")
    async def outside(request: Request, call_next: Callable[..., Any]) -> Any:
        request.state.tenant = "acme"
        response = await call_next(request)
        seen.append(request.state.user)
        return response

    @app.get("/")
    async def endpoint(request: Request) -> str:
        await flavour.do(request.state.db, names)
        request.state.user = "ada"
        return str(request.state.tenant)

    assert (await call(app, "GET", "/")).json == "acme"
    assert seen == ["ada"]


@one_of_each
async def test_what_is_noted_before_an_exception_is_seen_outside(
    flavour: Flavour,
) -> None:
    seen: list[Any] = []
    app = application(flavour)

    @app.get("/")
    async def endpoint(request: Request) -> None:
        await flavour.do(request.state.db, names)
        request.state.user = "ada"
        raise LookupError

    scope_state: dict[str, Any] = {}
    await call(app, "GET", "/", state=scope_state)

    seen.append(scope_state["user"])
    assert seen == ["ada"]
    assert "db" not in scope_state


@one_of_each
async def test_the_state_of_the_lifespan_arrives(
    flavour: Flavour, observer: Observer
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        yield {"x": 1, "shared": []}

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint(request: Request) -> list[Any]:
        await flavour.do(request.state.db, lambda session: add_item(session).id)
        request.state.shared.append("seen")
        return [request.state.x, request.state.shared]

    with TestClient(app) as client:
        assert client.post("/").json() == [1, ["seen"]]
        assert observer.names() == ["one"]
        client.portal.call(flavour.dispose)


@one_of_each
async def test_an_attribute_that_is_nowhere_is_missed_as_ever(
    flavour: Flavour,
) -> None:
    app = application(flavour)

    @app.get("/")
    async def endpoint(request: Request) -> list[Any]:
        return [hasattr(request.state, "nothing"), getattr(request.state, "x", None)]

    assert (await call(app, "GET", "/")).json == [False, None]


# Other middleware, inside and outside


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response


OTHERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gzip": (GZipMiddleware, {"minimum_size": 1}),
    "cors": (CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["*"]}),
    "base http": (Passing, {}),
}
ORIGIN = {"origin": "http://elsewhere", "accept-encoding": "gzip"}
SIGNS = {
    "gzip": ("content-encoding", "gzip"),
    "cors": ("access-control-allow-origin", "*"),
    "base http": ("x-passed", "yes"),
}


def surrounded(flavour: Flavour, other: str, where: str) -> FastAPI:
    app = FastAPI()
    kind, options = OTHERS[other]
    order = [(DBSessionMiddleware, {"db": flavour.db}), (kind, options)]
    for made, made_of in order if where == "outside" else reversed(order):
        app.add_middleware(made, **made_of)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).name))

    def fail(session: Session) -> Response:
        add_item(session, "dropped")
        return PlainTextResponse("conflict", 409)

    app.post("/fails")(flavour.endpoint(fail))
    return app


@one_of_each
@pytest.mark.parametrize("where", ["inside", "outside"])
@pytest.mark.parametrize("other", OTHERS)
async def test_works_with_other_middleware(
    flavour: Flavour, observer: Observer, other: str, where: str
) -> None:
    app = surrounded(flavour, other, where)

    with TestClient(app) as client:
        good = client.post("/", headers=ORIGIN)
        bad = client.post("/fails", headers=ORIGIN)
        client.portal.call(flavour.dispose)

    name, value = SIGNS[other]
    assert (good.status_code, good.json(), good.headers[name]) == (200, "one", value)
    assert (bad.status_code, bad.text, bad.headers[name]) == (409, "conflict", value)
    assert observer.names() == ["one"]


@one_of_each
async def test_a_cors_preflight_needs_no_session(flavour: Flavour) -> None:
    app = surrounded(flavour, "cors", "inside")
    headers = {**ORIGIN, "access-control-request-method": "POST"}

    with TestClient(app) as client:
        assert client.options("/", headers=headers).status_code == 200

    assert flavour.db.pool_status().idle == 0


# Responses of every kind


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "static" / "page.txt"
    path.parent.mkdir()
    path.write_text("from the file")
    return path


async def nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


RESPONSES: dict[str, tuple[Callable[[Path], Response], int, bytes]] = {
    "204": (lambda file: Response(status_code=204), 204, b""),
    "304": (lambda file: Response(status_code=304), 304, b""),
    "a redirect": (lambda file: RedirectResponse("/elsewhere", 303), 303, b""),
    "a file": (lambda file: FileResponse(file), 200, b"from the file"),
    "an empty stream": (lambda file: StreamingResponse(nothing()), 200, b""),
    "an empty body": (lambda file: Response(), 200, b""),
}


@pytest.mark.parametrize("kind", RESPONSES)
async def test_a_response_of_any_kind_is_passed_on_after_commit(
    flavour: Flavour, observer: Observer, file: Path, kind: str
) -> None:
    make, status, body = RESPONSES[kind]
    at_start: list[list[str]] = []

    def respond(session: Session) -> Response:
        add_item(session)
        return make(file)

    def look(message: Message) -> None:
        at_start.append(observer.names())

    app = application(flavour)
    app.post("/")(flavour.endpoint(respond))
    reply = await call(app, "POST", "/", on_message=look)

    assert (reply.status, reply.body, reply.error) == (status, body, None)
    assert reply.complete
    assert at_start[0] == ["one"]


async def test_head_is_served_like_get(flavour: Flavour, file: Path) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        return FileResponse(file, headers={"x-items": str(len(names(session)))})

    app.api_route("/", methods=["GET", "HEAD"])(flavour.endpoint(respond))
    reply = await call(app, "HEAD", "/")

    headers = dict(reply.starts[0]["headers"])
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)
    assert (headers[b"x-items"], headers[b"content-length"]) == (b"0", b"13")


async def test_a_part_of_a_file_is_served(flavour: Flavour, file: Path) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        add_item(session)
        return FileResponse(file)

    app.get("/")(flavour.endpoint(respond))
    headers = [(b"range", b"bytes=5-7")]
    reply = await call(app, "GET", "/", headers=headers)

    assert (reply.status, reply.body, reply.complete) == (206, b"the", True)


async def test_a_file_may_be_left_to_the_server(
    flavour: Flavour, observer: Observer, file: Path
) -> None:
    app = application(flavour)

    def respond(session: Session) -> Response:
        add_item(session)
        return FileResponse(file)

    app.post("/")(flavour.endpoint(respond))
    extensions = {"http.response.pathsend": {}}
    reply = await call(app, "POST", "/", extensions=extensions)

    kinds = [message["type"] for message in reply.messages]
    assert kinds == ["http.response.start", "http.response.pathsend"]
    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["one"]


async def test_static_files_cost_no_session(flavour: Flavour, file: Path) -> None:
    app = application(flavour)
    app.mount("/static", StaticFiles(directory=file.parent))

    found = await call(app, "GET", "/static/page.txt")
    missed = await call(app, "GET", "/static/nothing.txt")

    assert (found.status, found.body) == (200, b"from the file")
    assert (missed.status, missed.complete) == (404, True)
    assert flavour.db.pool_status().idle == 0


async def test_what_is_not_found_or_not_allowed_is_answered_as_ever(
    flavour: Flavour,
) -> None:
    app = application(flavour)
    app.get("/")(flavour.endpoint(names))

    assert (await call(app, "GET", "/nowhere")).status == 404
    assert (await call(app, "POST", "/")).status == 405
    assert flavour.db.pool_status().idle == 0
