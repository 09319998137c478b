"""A middleware further in hands on a copy of the scope: nothing is overlooked."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy.exc import IntegrityError
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from support.asgi import ASGIApp, Message, call
from support.conflicts import Conflict
from support.failed_commits import check_conflict, conflict
from support.flavours import FEW, Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware, ReadOnlyError, current_unit, transactional
from unitwork.testing import commit_faults, no_waits

pytestmark = [pytest.mark.anyio, FEW]


class Copies:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        await self.app(dict(scope), receive, send)


class CopiesAll(Copies):
    """Not even the state is the same object."""

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        copied = {**scope, "state": dict(scope["state"]), "headers": []}
        await self.app(copied, receive, send)


def around_the_app(flavour: Flavour, app: ASGIApp, copies: type) -> ASGIApp:
    return DBSessionMiddleware(copies(app), flavour.db)


def between(flavour: Flavour, app: ASGIApp, copies: type) -> ASGIApp:
    app.add_middleware(copies)  # type: ignore[attr-defined]
    app.add_middleware(DBSessionMiddleware, db=flavour.db)  # type: ignore[attr-defined]
    return app


def mounted(flavour: Flavour, app: ASGIApp, copies: type) -> ASGIApp:
    outer = FastAPI()
    outer.add_middleware(DBSessionMiddleware, db=flavour.db)
    outer.mount("/", copies(app))
    return outer


def mounted_function(flavour: Flavour, app: ASGIApp, copies: type) -> ASGIApp:
    async def copying(scope: Message, receive: Any, send: Any) -> None:
        await copies(app)(scope, receive, send)

    middleware = [Middleware(DBSessionMiddleware, db=flavour.db)]
    return Starlette(routes=[Mount("/", app=copying)], middleware=middleware)


COPIES = pytest.mark.parametrize("copies", [Copies, CopiesAll])
PLACES = pytest.mark.parametrize(
    "place", [around_the_app, between, mounted, mounted_function]
)


@COPIES
@PLACES
async def test_the_options_of_an_endpoint_are_obeyed(
    flavour: Flavour, observer: Observer, place: Any, copies: type
) -> None:
    app = FastAPI()
    endpoint = flavour.endpoint(lambda s: add_item(s).id)
    app.post("/")(transactional(read_only=True)(endpoint))

    reply = await call(place(flavour, app, copies), "POST", "/")

    assert (reply.status, type(reply.error)) == (500, ReadOnlyError)
    assert observer.names() == []


@PLACES
async def test_those_of_a_class_are(flavour: Flavour, place: Any) -> None:
    @transactional(read_only=True)
    class Endpoint(HTTPEndpoint):
        @transactional(deadline=5.0)
        async def post(self, request: Request) -> Response:
            session = await flavour.db.session(request)
            await flavour.do(session, lambda s: add_item(s).id)
            return Response()

    app = Starlette(routes=[Route("/", Endpoint)])
    reply = await call(place(flavour, app, Copies), "POST", "/")

    assert (reply.status, type(reply.error)) == (500, ReadOnlyError)


@PLACES
async def test_a_failure_is_retried(
    flavour: Flavour, observer: Observer, place: Any
) -> None:
    attempts = []

    def fail_once(session: Any) -> None:
        attempts.append(current_unit().attempt)
        add_item(session)
        if len(attempts) == 1:
            raise Conflict

    app = FastAPI()
    app.post("/")(transactional(attempts=3)(flavour.endpoint(fail_once)))
    with no_waits():
        reply = await call(place(flavour, app, Copies), "POST", "/", body=b"{}")

    assert (reply.status, attempts, observer.names()) == (200, [1, 2], ["one"])


@PLACES
async def test_options_that_come_too_late_are_an_error(
    flavour: Flavour, observer: Observer, place: Any
) -> None:
    class Writes(Copies):
        async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
            session = await flavour.db.session(scope)
            await flavour.do(session, lambda s: add_item(s).id)
            await super().__call__(scope, receive, send)

    app = FastAPI()
    app.post("/")(transactional(read_only=True)(flavour.endpoint(lambda s: None)))
    reply = await call(place(flavour, app, Writes), "POST", "/")

    assert observer.names() == []
    assert re.match("read_only=True.* comes too late", str(reply.error))


@COPIES
@PLACES
async def test_the_handlers_of_the_application_answer_a_failed_commit(
    flavour: Flavour, place: Any, copies: type
) -> None:
    app = FastAPI(exception_handlers={IntegrityError: conflict})
    app.post("/")(flavour.endpoint(lambda s: add_item(s).id))
    error = IntegrityError("COMMIT", None, Exception("a duplicate"))

    with commit_faults(flavour.db, error):
        reply = await call(place(flavour, app, copies), "POST", "/")

    check_conflict(reply)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@PLACES
async def test_so_they_do_for_a_stream(flavour: Flavour, place: Any, spec: str) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "one"

    def body(session: Any) -> Response:
        add_item(session)
        return StreamingResponse(chunks())

    app = FastAPI(exception_handlers={IntegrityError: conflict})
    app.post("/")(flavour.endpoint(body))
    error = IntegrityError("COMMIT", None, Exception("a duplicate"))

    with commit_faults(flavour.db, error):
        asgi = {"version": "3.0", "spec_version": spec}
        reply = await call(place(flavour, app, Copies), "POST", "/", asgi=asgi)

    check_conflict(reply)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
@COPIES
@PLACES
async def test_an_exception_that_a_handler_streams_about_rolls_back(
    flavour: Flavour, observer: Observer, place: Any, copies: type, spec: str
) -> None:
    async def chunks() -> AsyncIterator[str]:
        yield "sorry"

    def fail(session: Any) -> None:
        add_item(session)
        raise LookupError

    app = FastAPI(
        exception_handlers={LookupError: lambda *_: StreamingResponse(chunks())}
    )
    app.post("/")(flavour.endpoint(fail))
    asgi = {"version": "3.0", "spec_version": spec}
    reply = await call(place(flavour, app, copies), "POST", "/", asgi=asgi)

    assert (reply.status, reply.complete, observer.names()) == (200, True, [])


# What the application takes out of its scope


@pytest.mark.parametrize("key", ["state", "endpoint", "path", "method", "app"])
async def test_what_is_taken_out_of_the_scope_is_not_missed(
    flavour: Flavour, observer: Observer, key: str
) -> None:
    async def endpoint(request: Request) -> Response:
        session = await flavour.db.session(request)
        await flavour.do(session, lambda s: add_item(s).id)
        request.scope.pop(key)
        return PlainTextResponse("stored", 201)

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (201, True, None)
    assert observer.names() == ["one"]


async def test_a_decorated_endpoint_has_its_own_annotations(flavour: Flavour) -> None:
    app = FastAPI()

    @app.post("/{number}")
    @transactional(read_only=True)
    async def endpoint(number: Number) -> JSONResponse:
        return JSONResponse({"number": number})

    assert (await call(app, "POST", "/7")).json == {"number": 7}


Number = int
