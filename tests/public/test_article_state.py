"""What the article promises: the state of the request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request

from support.article import application
from support.asgi import Message, call
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite", "asyncpg")


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
