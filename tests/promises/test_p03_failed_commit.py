"""P3: a COMMIT that fails is answered by the app's own handlers, in one response."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from sqlalchemy.exc import IntegrityError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.asgi import Message, call
from support.endpoints import serve_bare, serve_fastapi, serve_starlette
from support.failed_commits import PassOn, check_conflict, conflict, fails_at_commit
from support.flavours import FEW, Flavour, Observer
from support.models import add_item
from unitwork import (
    DBSessionMiddleware,
    SessionEndedError,
    TransactionOptions,
    UsageError,
)
from unitwork.options import route_retries
from unitwork.retry import RetryPolicy

pytestmark = pytest.mark.anyio


FRAMEWORKS = [serve_fastapi, serve_starlette]

HANDLERS = {IntegrityError: conflict}


# Who answers


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("serve", FRAMEWORKS)
async def test_the_handler_of_the_application_answers(
    flavour: Flavour, observer: Observer, serve: Any, method: str
) -> None:
    app = serve(flavour, fails_at_commit, handlers=HANDLERS)

    check_conflict(await call(app, method, "/"))
    assert (observer.names(), observer.children()) == ([], 0)


@pytest.mark.parametrize("serve", FRAMEWORKS)
async def test_without_a_handler_the_answer_is_500_and_the_server_hears_of_it(
    flavour: Flavour, observer: Observer, serve: Any
) -> None:
    reply = await call(serve(flavour, fails_at_commit), "POST", "/")

    assert (reply.status, reply.body) == (500, b"Internal Server Error")
    assert reply.complete
    assert isinstance(reply.error, IntegrityError)
    assert observer.names() == []


@FEW
@pytest.mark.parametrize("key", [Exception, 500])
async def test_the_handler_for_everything_answers(flavour: Flavour, key: Any) -> None:
    app = serve_fastapi(flavour, fails_at_commit, handlers={key: conflict})

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (409, True)
    assert isinstance(reply.error, IntegrityError)  # as of any other error


async def test_without_a_framework_the_server_hears_of_it_and_nothing_is_sent(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await call(serve_bare(flavour, fails_at_commit), "POST", "/")

    assert reply.messages == []
    assert isinstance(reply.error, IntegrityError)
    assert observer.names() == []


@FEW
async def test_without_a_framework_an_application_that_catches_all_stops_nothing(
    flavour: Flavour,
) -> None:
    async def bare(scope: Message, receive: Any, send: Any) -> None:
        response = await flavour.do(await flavour.db.session(scope), fails_at_commit)
        try:
            await response(scope, receive, send)
        except BaseException:
            await PlainTextResponse("all is well")(scope, receive, send)

    reply = await call(DBSessionMiddleware(bare, flavour.db), "POST", "/")

    assert reply.messages == []
    assert isinstance(reply.error, IntegrityError)


@FEW
async def test_without_a_framework_an_application_that_ignores_errors_does_not_go_on(
    flavour: Flavour, done: list[str]
) -> None:
    async def bare(scope: Message, receive: Any, send: Any) -> None:
        response = await flavour.do(await flavour.db.session(scope), fails_at_commit)
        with suppress(Exception):
            await response(scope, receive, send)
        done.append("mail sent")

    reply = await call(DBSessionMiddleware(bare, flavour.db), "POST", "/")

    assert isinstance(reply.error, IntegrityError)
    assert done == []


@FEW
async def test_the_handler_of_a_mounted_application_answers(flavour: Flavour) -> None:
    mounted = FastAPI(exception_handlers=HANDLERS)
    mounted.post("/")(flavour.endpoint(fails_at_commit))
    app = FastAPI(exception_handlers={IntegrityError: lambda r, e: Response("no")})
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.mount("/mounted", mounted)

    check_conflict(await call(app, "POST", "/mounted/"))


@FEW
async def test_the_middleware_of_a_mounted_application_does_the_same(
    flavour: Flavour,
) -> None:
    app = FastAPI()
    app.mount("/m", serve_fastapi(flavour, fails_at_commit, handlers=HANDLERS))

    check_conflict(await call(app, "POST", "/m/"))


@FEW
async def test_a_middleware_around_the_whole_application_does_the_same(
    flavour: Flavour,
) -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.post("/")(flavour.endpoint(fails_at_commit))

    check_conflict(await call(DBSessionMiddleware(app, flavour.db), "POST", "/"))


@FEW
async def test_a_coroutine_function_may_be_the_handler(flavour: Flavour) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        return conflict(request, error)

    handlers = {IntegrityError: handler}
    app = serve_fastapi(flavour, fails_at_commit, handlers=handlers)

    check_conflict(await call(app, "POST", "/"))


async def test_the_handler_may_use_a_unit_of_its_own(
    narrow: Flavour, observer: Observer
) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        await narrow.work(partial(add_item, name="audit"))
        return conflict(request, error)

    handlers = {IntegrityError: handler}
    app = serve_fastapi(narrow, fails_at_commit, handlers=handlers)

    check_conflict(await call(app, "POST", "/"))
    assert observer.names() == ["audit"]


async def test_the_session_that_failed_refuses_the_handler(flavour: Flavour) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        with pytest.raises(SessionEndedError, match=r"db\.transaction\(\)"):
            await flavour.db.session(request)
        return conflict(request, error)

    handlers = {IntegrityError: handler}
    app = serve_fastapi(flavour, fails_at_commit, handlers=handlers)

    check_conflict(await call(app, "POST", "/"))


@FEW
async def test_a_handler_that_fails_itself_makes_it_500(flavour: Flavour) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        raise LookupError

    handlers = {IntegrityError: handler}
    app = serve_fastapi(flavour, fails_at_commit, handlers=handlers)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, LookupError)


# Other middleware


class Catching:
    """A middleware that deals with whatever it catches."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception:
            await PlainTextResponse("all is well")(scope, receive, send)


@FEW
@pytest.mark.parametrize(
    "other",
    [
        (PassOn, {}),
        (GZipMiddleware, {}),
        (CORSMiddleware, {"allow_origins": ["*"]}),
        (Catching, {}),
    ],
    ids=lambda other: other[0].__name__,
)
@pytest.mark.parametrize("side", ["inside", "outside"])
async def test_other_middleware_sees_one_response(
    flavour: Flavour, other: tuple[Any, dict[str, Any]], side: str
) -> None:
    ours = (DBSessionMiddleware, {"db": flavour.db})
    app = FastAPI(exception_handlers=HANDLERS)
    for kind, options in (other, ours) if side == "inside" else (ours, other):
        app.add_middleware(kind, **options)
    app.post("/")(flavour.endpoint(fails_at_commit))

    headers = [(b"origin", b"http://elsewhere"), (b"accept-encoding", b"gzip")]
    check_conflict(await call(app, "POST", "/", headers=headers))


@FEW
async def test_the_error_answer_passes_the_middleware_outside(flavour: Flavour) -> None:
    app = serve_fastapi(flavour, fails_at_commit, handlers=HANDLERS)
    app.add_middleware(PassOn)
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    reply = await call(app, "POST", "/", headers=[(b"origin", b"http://elsewhere")])

    check_conflict(reply)
    headers = dict(reply.starts[0]["headers"])
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers[b"x-passed-on"] == b"yes"


# Handlers that read the request


async def with_body(request: Request, error: Exception) -> Response:
    return JSONResponse({"sent": (await request.body()).decode()}, 409)


def reading(app: Any) -> Any:
    """The application with a middleware that has read the body."""

    class Reads:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
            await receive()
            await self.app(scope, receive, send)

    app.user_middleware.append(Middleware(Reads))  # beneath ours
    return app


@FEW
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_handler_can_read_the_body_that_was_kept_for_a_retry(
    flavour: Flavour, framework: Any
) -> None:
    handlers, options = {IntegrityError: with_body}, TransactionOptions(attempts=2)
    app = framework(flavour, fails_at_commit, handlers=handlers, options=options)

    reply = await call(reading(app), "POST", "/", body=b"a" * 1000)

    sent = {"sent": "a" * 1000}
    assert (reply.status, reply.json, reply.complete) == (409, sent, True)


@FEW
async def test_a_handler_has_the_request_of_the_endpoint_with_the_body_it_has_read(
    flavour: Flavour,
) -> None:
    async def endpoint(request: Request) -> None:
        await request.body()
        await flavour.do(await flavour.db.session(request), fails_at_commit)

    app = FastAPI(exception_handlers={IntegrityError: with_body})
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(endpoint)

    reply = await call(app, "POST", "/", body=b"a" * 1000)

    assert (reply.status, reply.json) == (409, {"sent": "a" * 1000})


@FEW
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_body_that_was_not_kept_is_an_error_and_no_hang(
    flavour: Flavour, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route_retries, "by_endpoints", False)
    monkeypatch.setattr(route_retries, "by_routers", False)
    handlers = {IntegrityError: with_body}
    options = TransactionOptions(attempts=attempts)
    app = serve_fastapi(flavour, fails_at_commit, handlers=handlers, options=options)

    limit = RetryPolicy().body_limit
    body = b"a" * (limit * (attempts - 1) + 1)
    reply = await call(reading(app), "POST", "/", body=body)

    assert isinstance(reply.error, UsageError)
    assert f"more than {limit} bytes" in str(reply.error)
