"""The template of a request's path: where frameworks leave it, with its prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from support.asgi import ASGIApp, call
from support.flavours import Flavour, only
from support.models import names
from support.sockets import run
from support.websocket import Socket
from unitwork import DatabaseSettings, DBSessionMiddleware
from unitwork.events import UnitEnded

pytestmark = [pytest.mark.anyio, only("aiosqlite", "asyncpg")]


class Routes(list[str | None]):
    """An observer that keeps the routes of units."""

    def on_event(self, event: Any) -> None:
        self.append(event.unit.route)


@contextmanager
def observed_routes(flavour: Flavour) -> Iterator[Routes]:
    stop = flavour.db.observe(routes := Routes(), only=[UnitEnded])
    yield routes
    stop()


async def routes_of(flavour: Flavour, app: Any, *paths: str) -> list[str | None]:
    """The routes of the units of requests for *paths*."""
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    with observed_routes(flavour) as found:
        for path in paths:
            await call(app, "GET", path)
    return found


def starlette_endpoint(flavour: Flavour) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> PlainTextResponse:
        await run(flavour, names)
        return PlainTextResponse("read")

    return endpoint


async def test_those_of_a_mounted_fastapi_have_its_prefix(flavour: Flavour) -> None:
    app, mounted = FastAPI(), FastAPI()
    mounted.get("/items/{id}")(flavour.endpoint(names))
    app.mount("/shop", mounted)

    found = await routes_of(flavour, app, "/shop/items/7")

    assert found == ["/shop/items/{id}"]


async def test_those_of_an_included_router_have_its_prefixes(flavour: Flavour) -> None:
    inner, outer, app, mounted = APIRouter(), APIRouter(), FastAPI(), FastAPI()
    inner.get("/{id}")(flavour.endpoint(names))
    outer.include_router(inner, prefix="/items")
    app.include_router(outer, prefix="/api")
    mounted.include_router(outer, prefix="/v1")
    app.mount("/shop", mounted)

    found = await routes_of(flavour, app, "/api/items/7", "/shop/v1/items/7")

    assert found == ["/api/items/{id}", "/shop/v1/items/{id}"]


async def test_those_of_a_mounted_starlette_have_its_prefix(flavour: Flavour) -> None:
    endpoint = starlette_endpoint(flavour)
    mounted = Starlette(routes=[Route("/items/{id:int}", endpoint)])
    app = Starlette(routes=[Mount("/a", routes=[Mount("/b", mounted)])])

    found = await routes_of(flavour, app, "/a/b/items/7")

    assert found == ["/a/b/items/{id}"]


async def test_parameters_of_a_mount_are_no_values(flavour: Flavour) -> None:
    endpoint = starlette_endpoint(flavour)
    routes = [Mount("/of/{who}", routes=[Route("/items/{id}", endpoint)])]
    app = Starlette(routes=routes)

    found = await routes_of(flavour, app, "/of/me/items/me", "/of/of/items/7")

    assert found == ["/of/{who}/items/{id}"] * 2


async def test_without_its_mount_if_that_can_not_be_known(flavour: Flavour) -> None:
    endpoint = starlette_endpoint(flavour)
    routes = [Mount("/of/{n:int}", routes=[Route("/items/{id}", endpoint)])]

    found = await routes_of(flavour, Starlette(routes=routes), "/of/007/items/7")

    assert found == ["/items/{id}"]


async def test_the_root_path_of_the_server_is_a_prefix(flavour: Flavour) -> None:
    app = FastAPI()
    app.get("/items/{id}")(flavour.endpoint(names))
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    with observed_routes(flavour) as found:
        await call(app, "GET", "/proxied/items/7", root_path="/proxied")

    assert found == ["/proxied/items/{id}"]


async def test_a_mount_is_the_route_if_its_application_has_none(
    flavour: Flavour,
) -> None:
    async def read(scope: Any, receive: Any, send: Any) -> None:
        reply = await starlette_endpoint(flavour)(Request(scope))
        await reply(scope, receive, send)

    mounted = Starlette(routes=[Mount("/raw", read)])

    found = await routes_of(
        flavour, Starlette(routes=[Mount("/a", mounted)]), "/a/raw/7"
    )

    assert found == ["/a/raw"]


async def test_a_mount_is_not_the_route_as_long_as_its_application_looks_for_one(
    flavour: Flavour,
) -> None:
    mounted = Starlette(routes=[Route("/items/{id}", starlette_endpoint(flavour))])
    # Its middleware uses the database before it looks.
    mounted.add_middleware(Reads, flavour=flavour)

    found = await routes_of(
        flavour, Starlette(routes=[Mount("/a", mounted)]), "/a/items/7", "/a/none"
    )

    assert found == ["/a/items/{id}", None]


class Reads:
    def __init__(self, app: ASGIApp, flavour: Flavour) -> None:
        self.app, self.flavour = app, flavour

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await run(self.flavour, names)
        await self.app(scope, receive, send)


async def test_logs_have_the_route_with_its_prefix(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    slow = flavour.another(settings=DatabaseSettings(slow_unit_warning=1e-9))
    app, mounted = FastAPI(), FastAPI()
    mounted.get("/items/{id}")(slow.endpoint(names))
    app.mount("/shop", mounted)
    app.add_middleware(DBSessionMiddleware, db=slow.db)

    await call(app, "GET", "/shop/items/7")

    await slow.dispose()
    assert "slow unit of work: GET /shop/items/{id} used" in caplog.text


async def test_that_of_a_websocket_has_its_prefixes(flavour: Flavour) -> None:
    async def read(websocket: WebSocket) -> None:
        await websocket.accept()
        await run(flavour, names)

    router, mounted, app = APIRouter(), FastAPI(), FastAPI()
    router.websocket("/of/{id}")(read)
    mounted.include_router(router, prefix="/sockets")
    app.mount("/shop", mounted)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    with observed_routes(flavour) as found:
        async with Socket(app, "/shop/sockets/of/7"):
            pass

    assert found == ["/shop/sockets/of/{id}"]
