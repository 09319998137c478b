"""P2: a request that failed leaves nothing behind, and a unit can say otherwise."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import Message, call
from support.endpoints import serve_bare, serve_fastapi, serve_starlette, yielding
from support.failures import (
    OurError,
    PolicyError,
    adding,
    answer_ok,
    answer_teapot,
    ok,
    raising,
)
from support.flavours import FEW, Flavour, Observer, everywhere
from support.models import add_item
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio


FRAMEWORKS = [serve_fastapi, serve_starlette]

HANDLERS = {OurError: answer_ok, PolicyError: answer_teapot}

RAISED = [
    pytest.param(raising(HTTPException, 400), 400, id="raised-400"),
    pytest.param(raising(HTTPException, 503), 503, id="raised-503"),
    pytest.param(raising(HTTPException, 303), 303, id="raised-303"),
    pytest.param(raising(OurError), 200, id="handled-with-200"),
    pytest.param(raising(ZeroDivisionError), 500, id="unhandled"),
]
RETURNED = [
    pytest.param(partial(JSONResponse, {}, 400), 400, id="returned-400"),
    pytest.param(partial(JSONResponse, {}, 409), 409, id="returned-409"),
    pytest.param(partial(JSONResponse, {}, 500), 500, id="returned-500"),
]


@everywhere
@pytest.mark.parametrize("serve", FRAMEWORKS)
@pytest.mark.parametrize(("fail", "status"), [*RAISED, *RETURNED])
async def test_a_request_that_failed_stores_nothing(
    flavour: Flavour, observer: Observer, serve: Any, fail: Any, status: int
) -> None:
    app = serve(flavour, adding(fail), handlers=HANDLERS)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (status, True)
    assert observer.names() == []


@everywhere
@pytest.mark.parametrize("serve", [*FRAMEWORKS, serve_bare])
@pytest.mark.parametrize(
    "response", [ok, partial(RedirectResponse, "/new", 303)], ids=["200", "303"]
)
async def test_a_response_below_400_that_is_returned_commits(
    flavour: Flavour, observer: Observer, serve: Any, response: Any
) -> None:
    reply = await call(serve(flavour, adding(response)), "POST", "/")

    assert (reply.complete, reply.error) == (True, None)
    assert observer.names() == ["one"]


@FEW
@pytest.mark.parametrize(("fail", "status"), RETURNED)
async def test_without_a_framework_the_status_decides(
    flavour: Flavour, observer: Observer, fail: Any, status: int
) -> None:
    reply = await call(serve_bare(flavour, adding(fail)), "POST", "/")

    assert (reply.status, observer.names()) == (status, [])


async def test_without_a_framework_an_exception_rolls_back_and_goes_on(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await call(serve_bare(flavour, adding(raising(OurError))), "POST", "/")

    assert isinstance(reply.error, OurError)
    assert (reply.messages, observer.names()) == ([], [])


async def test_an_application_that_handles_its_own_exception_has_not_failed(
    flavour: Flavour, observer: Observer
) -> None:
    async def bare(scope: Message, receive: Any, send: Any) -> None:
        session = await flavour.db.session(scope)
        try:
            await flavour.do(session, adding(raising(OurError)))
        except OurError:
            await PlainTextResponse("never mind")(scope, receive, send)

    reply = await call(DBSessionMiddleware(bare, flavour.db), "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


async def test_an_exception_that_was_dealt_with_before_is_no_failure(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> Response:
        add_item(session)
        try:
            raise OurError
        except OurError:
            return ok()

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


@FEW
async def test_an_exception_outside_of_the_application_is_no_failure(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve_fastapi(flavour, adding(ok))
    try:
        raise OurError
    except OurError:
        reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


async def test_a_result_that_fits_no_response_model_stores_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/", response_model=int)(flavour.endpoint(adding(lambda: "no number")))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (500, [])


async def test_an_application_that_says_nothing_stores_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    async def bare(scope: Message, receive: Any, send: Any) -> None:
        await flavour.do(await flavour.db.session(scope), add_item)

    reply = await call(DBSessionMiddleware(bare, flavour.db), "POST", "/")

    assert (reply.messages, observer.names()) == ([], [])


# Dependencies


@FEW
@pytest.mark.parametrize(("fail", "status"), RAISED)
async def test_a_dependency_that_raises_takes_the_work_with_it(
    flavour: Flavour, observer: Observer, fail: Any, status: int
) -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    dependencies = [
        Depends(flavour.endpoint(adding(ok, "first"))),
        Depends(flavour.endpoint(adding(fail, "second"))),
    ]
    app.post("/", dependencies=dependencies)(flavour.endpoint(adding(ok, "third")))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (status, [])


async def test_a_teardown_that_raises_before_the_response_takes_the_work_with_it(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    dependency = yielding(flavour, add_item, lambda s: raising(HTTPException, 409)())
    depends = [Depends(dependency, scope="function")]
    app.post("/", dependencies=depends)(flavour.endpoint(adding(ok, "two")))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (409, [])


async def test_a_teardown_that_raises_after_the_response_leaves_what_was_promised(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    dependency = yielding(flavour, add_item, lambda s: raising(OurError)())
    depends = [Depends(dependency, scope="request")]
    app.post("/", dependencies=depends)(flavour.endpoint(adding(ok, "two")))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (200, True)
    assert isinstance(reply.error, OurError)
    assert observer.names() == ["one", "two"]


async def test_a_dependency_that_swallows_the_error_rescues_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    dependency = yielding(flavour, add_item, lambda s: None, catch=Exception)
    body = flavour.endpoint(adding(raising(OurError), "two"))
    app.post("/", dependencies=[Depends(dependency)])(body)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (500, [])


# Between us and the application


class PassOn(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: RequestResponseEndpoint
    ) -> Response:
        return await call_next(request)


@pytest.fixture
def distant(flavour: Flavour) -> FastAPI:
    """An application behind a middleware that runs it in a task of its own."""
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(PassOn)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


@FEW
@pytest.mark.parametrize(
    ("then", "status", "stored"),
    [
        pytest.param(raising(HTTPException, 400), 400, [], id="raised-400"),
        pytest.param(partial(JSONResponse, {}, 409), 409, [], id="returned-409"),
        pytest.param(raising(ZeroDivisionError), 500, [], id="unhandled"),
        pytest.param(raising(OurError), 200, ["one"], id="handled-with-200"),
        pytest.param(ok, 200, ["one"], id="returned-200"),
    ],
)
async def test_behind_a_base_http_middleware_the_status_decides(
    distant: FastAPI,
    flavour: Flavour,
    observer: Observer,
    then: Any,
    status: int,
    stored: list[str],
) -> None:
    distant.post("/")(flavour.endpoint(adding(then)))

    reply = await call(distant, "POST", "/")

    assert (reply.status, reply.complete) == (status, True)
    assert observer.names() == stored


@FEW
async def test_inside_a_base_http_middleware_the_exception_decides(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve_fastapi(flavour, adding(raising(OurError)), handlers=HANDLERS)
    app.add_middleware(PassOn)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, [])


def test_the_test_client_sees_the_same(flavour: Flavour, observer: Observer) -> None:
    app = serve_fastapi(flavour, adding(raising(HTTPException, 400)))

    with TestClient(app) as client:
        assert client.post("/").status_code == 400
    assert observer.names() == []
