"""Which exception a response answers: only one that has left the endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from support.asgi import ASGIApp, Message, call
from support.flavours import FEW, Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware

pytestmark = [pytest.mark.anyio, FEW]

SPECS = pytest.mark.parametrize("spec", ["2.3", "2.4"])


class OurError(Exception):
    pass


async def test_contexts_in_a_circle_are_looked_through_once(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint(request: Request) -> None:
        await flavour.work(lambda session: add_item(session) and None)
        first, second = KeyError(), LookupError()
        first.__context__, second.__context__ = second, first
        try:
            raise first
        except KeyError:
            await JSONResponse({})(request.scope, request.receive, request._send)

    assert (await call(app, "POST", "/")).status == 200
    assert observer.names() == ["one"]


async def chunks() -> AsyncIterator[str]:
    yield "sorry"


async def by_stream(request: Request, error: Exception) -> Response:
    return StreamingResponse(chunks())


def by_stream_in_a_thread(request: Request, error: Exception) -> Response:
    return StreamingResponse(chunks())


async def by_file(request: Request, error: Exception) -> Response:
    return FileResponse(__file__)


async def by_json(request: Request, error: Exception) -> Response:
    return JSONResponse({})


async def after_the_body(request: Request, error: Exception) -> Response:
    return JSONResponse({"read": len(await request.body())})


class HandlesMore(JSONResponse):
    """Handles an exception of its own while it sends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            raise KeyError
        except KeyError:
            await super().__call__(scope, receive, send)


async def by_odd(request: Request, error: Exception) -> Response:
    return HandlesMore({})


HANDLERS = pytest.mark.parametrize(
    "handler",
    [by_stream, by_stream_in_a_thread, by_file, by_json, after_the_body, by_odd],
)


def failing(flavour: Flavour, error: Exception) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> None:
        session = await flavour.db.session(request)
        await flavour.do(session, lambda s: add_item(s).id)
        raise error

    return endpoint


def by_fastapi(flavour: Flavour, handler: Any, error: Exception) -> ASGIApp:
    app = FastAPI(exception_handlers={OurError: handler, 418: handler})
    app.post("/")(failing(flavour, error))
    return DBSessionMiddleware(app, flavour.db)


def by_starlette(flavour: Flavour, handler: Any, error: Exception) -> ASGIApp:
    route = Route("/", failing(flavour, error), methods=["POST"])
    app = Starlette(
        routes=[route], exception_handlers={OurError: handler, 418: handler}
    )
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


def by_mounted(flavour: Flavour, handler: Any, error: Exception) -> ASGIApp:
    inner = Starlette(
        routes=[Route("/", failing(flavour, error), methods=["POST"])],
        exception_handlers={OurError: handler, 418: handler},
    )
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.mount("/", inner)
    return app


def by_dependency(flavour: Flavour, handler: Any, error: Exception) -> ASGIApp:
    """The exception passes a dependency with `yield`, a router, a mounted router."""

    async def dependency() -> AsyncIterator[None]:
        async with passing_on():
            yield

    router = APIRouter(dependencies=[Depends(dependency)])
    router.post("/")(failing(flavour, error))
    app = FastAPI(exception_handlers={OurError: handler, 418: handler})
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.include_router(router)
    return app


@asynccontextmanager
async def passing_on() -> AsyncIterator[None]:
    yield


APPS = pytest.mark.parametrize(
    "framework", [by_fastapi, by_starlette, by_mounted, by_dependency]
)


@SPECS
@HANDLERS
@APPS
async def test_a_handler_that_answers_with_200_rolls_back(
    flavour: Flavour, observer: Observer, framework: Any, handler: Any, spec: str
) -> None:
    app = framework(flavour, handler, OurError())

    reply = await call(app, "POST", "/", asgi={"version": "3.0", "spec_version": spec})

    assert (reply.status, reply.complete, observer.names()) == (200, True, [])


@SPECS
@APPS
async def test_so_does_one_that_is_installed_for_a_status(
    flavour: Flavour, observer: Observer, framework: Any, spec: str
) -> None:
    app = framework(flavour, by_stream, HTTPException(418))

    reply = await call(app, "POST", "/", asgi={"version": "3.0", "spec_version": spec})

    assert (reply.status, reply.complete, observer.names()) == (200, True, [])


async def test_an_exception_that_a_middleware_answers_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    class Catches:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
            try:
                await self.app(scope, receive, send)
            except OurError:
                await PlainTextResponse("sorry")(scope, receive, send)

    route = Route("/", failing(flavour, OurError()), methods=["POST"])
    app = Starlette(routes=[route], middleware=[Middleware(Catches)])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    assert (await call(app, "POST", "/")).body == b"sorry"
    assert observer.names() == []


async def test_a_handler_that_fails_is_answered_for_the_error_it_raises(
    flavour: Flavour, observer: Observer
) -> None:
    async def fails(request: Request, error: Exception) -> Response:
        raise HTTPException(418) from error

    app = FastAPI(exception_handlers={OurError: fails, 418: by_stream})
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(failing(flavour, OurError()))

    assert (await call(app, "POST", "/")).body == b"sorry"
    assert observer.names() == []


# Handled by the application itself


@SPECS
async def test_an_application_that_streams_from_an_except_block_has_not_failed(
    flavour: Flavour, observer: Observer, spec: str
) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        try:
            find("one")
        except LookupError:
            session = await flavour.db.session(scope)
            await flavour.do(session, lambda s: add_item(s).id)
            await StreamingResponse(chunks(), 201)(scope, receive, send)

    ours = DBSessionMiddleware(app, flavour.db)
    reply = await call(ours, "POST", "/", asgi={"version": "3.0", "spec_version": spec})

    assert (reply.status, observer.names()) == (201, ["one"])


async def test_an_exception_with_the_frames_of_an_earlier_request_is_not_this_one_s(
    flavour: Flavour, observer: Observer
) -> None:
    reused = OurError()
    earlier = by_starlette(flavour, by_json, reused)

    async def app(scope: Message, receive: Any, send: Any) -> None:
        try:
            raise reused
        except OurError:
            session = await flavour.db.session(scope)
            await flavour.do(session, lambda s: add_item(s).id)
            await PlainTextResponse("created", 201)(scope, receive, send)

    await call(keeping_its_frames(reused, earlier), "POST", "/")
    reply = await call(DBSessionMiddleware(app, flavour.db), "POST", "/")

    assert (reply.status, observer.names()) == (201, ["one"])


def keeping_its_frames(error: Exception, app: ASGIApp) -> ASGIApp:
    """Starlette clears the traceback in later versions."""

    async def keep(scope: Message, receive: Any, send: Any) -> None:
        async def noting(message: Message) -> None:
            frames.append(error.__traceback__)
            await send(message)

        frames: list[Any] = []
        await app(scope, receive, noting)
        error.__traceback__ = frames[0]

    return keep


@pytest.mark.parametrize("answer", [JSONResponse, HandlesMore])
async def test_a_request_inside_an_except_block_of_the_server_has_not_failed(
    flavour: Flavour, observer: Observer, answer: type[Response]
) -> None:
    async def endpoint(request: Request) -> Response:
        session = await flavour.db.session(request)
        await flavour.do(session, lambda s: add_item(s).id)
        return answer({}, 201)

    async def other(scope: Message, receive: Any, send: Any) -> None:
        raise OurError

    async def server(scope: Message, receive: Any, send: Any) -> None:
        try:
            await other(dict(scope), receive, send)
        except OurError:
            await app(scope, receive, send)

    app = Starlette(routes=[Mount("/", Route("/", endpoint, methods=["POST"]))])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    assert (await call(server, "POST", "/")).status == 201
    assert observer.names() == ["one"]


def find(key: str) -> str:
    return {"nothing": ""}[key]
