"""unitwork's own errors answer for themselves where the application has no handler."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from support.asgi import ASGIApp, Message, Reply, call
from support.endpoints import serve_bare, serve_fastapi, serve_starlette
from support.failed_commits import PassOn
from support.flavours import FEW, Flavour, Observer
from support.models import add_item
from unitwork import (
    CommitUnknownError,
    DBSessionMiddleware,
    DeadlineExceededError,
    PartialCommitError,
    PoolTimeoutError,
    current_unit,
)
from unitwork.fastapi import exception_handlers
from unitwork.testing import CommitFault, commit_faults

pytestmark = [pytest.mark.anyio, FEW]

UNKNOWN = CommitUnknownError("who knows")
PARTIAL = PartialCommitError("one of two", committed=("one",), unknown=("two",))
ERRORS = [
    (PoolTimeoutError("no connection", retry_after=1.5), 503, "about:blank"),
    (SQLAlchemyTimeout("QueuePool limit"), 503, "about:blank"),
    (DeadlineExceededError("too long"), 504, "about:blank"),
    (UNKNOWN, 500, "urn:problem-type:unitwork:commit-unknown"),
    (PARTIAL, 500, "urn:problem-type:unitwork:partial-commit"),
]
APPS = pytest.mark.parametrize("serve", [serve_fastapi, serve_starlette, serve_bare])


def raising(error: Exception) -> Any:
    def body(session: Any) -> Response:
        add_item(session)
        raise error

    return body


def stored(session: Any) -> Response:
    add_item(session)
    return PlainTextResponse("stored", 201)


def failing(error: Exception) -> Any:
    """Fail when the response is about to start."""

    def fail() -> None:
        raise error

    def body(session: Any) -> Response:
        current_unit().before_commit(fail)
        return stored(session)

    return body


WAYS = pytest.mark.parametrize("way", [raising, failing])


def check_answer(reply: Reply, status: int, kind: str) -> dict[bytes, bytes]:
    assert (reply.status, reply.complete, reply.error) == (status, True, None)
    document = reply.json
    assert (document["status"], document["type"]) == (status, kind)
    headers = dict(reply.starts[0]["headers"])
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"content-length"]) == len(reply.body)
    return headers


@APPS
@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
async def test_raised_by_the_endpoint(
    flavour: Flavour, observer: Observer, serve: Any, error: Any, status: int, kind: str
) -> None:
    reply = await call(serve(flavour, raising(error)), "POST", "/")

    headers = check_answer(reply, status, kind)
    assert (b"retry-after" in headers) == (status == 503)
    assert observer.names() == []


@APPS
@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
async def test_raised_by_commit(
    flavour: Flavour, serve: Any, error: Any, status: int, kind: str
) -> None:
    reply = await call(serve(flavour, failing(error)), "POST", "/")

    check_answer(reply, status, kind)


@APPS
async def test_an_unknown_outcome_is_told_in_words(unsure: Flavour, serve: Any) -> None:
    with commit_faults(unsure.db, CommitFault.COMMITTED):
        reply = await call(serve(unsure, stored), "POST", "/")

    check_answer(reply, 500, "urn:problem-type:unitwork:commit-unknown")
    assert "unknown" in reply.json["detail"]
    assert "may be stored" in reply.json["detail"]


async def test_the_wait_of_a_full_pool_is_rounded_up(flavour: Flavour) -> None:
    app = serve_starlette(flavour, raising(ERRORS[0][0]))

    reply = await call(app, "POST", "/")

    assert dict(reply.starts[0]["headers"])[b"retry-after"] == b"2"


@pytest.mark.parametrize("side", ["inside", "outside", "both"])
@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
async def test_past_a_base_http_middleware(
    flavour: Flavour, side: str, error: Any, status: int, kind: str
) -> None:
    app = FastAPI()
    if side != "outside":
        app.add_middleware(PassOn)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    if side != "inside":
        app.add_middleware(PassOn)
    app.post("/")(flavour.endpoint(raising(error)))

    check_answer(await call(app, "POST", "/"), status, kind)


@APPS
async def test_the_error_is_logged_with_its_traceback(
    flavour: Flavour, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await call(serve(flavour, raising(UNKNOWN)), "POST", "/")

    (record,) = [each for each in caplog.records if each.name == "unitwork"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.exc_info[1] is UNKNOWN
    assert UNKNOWN.__traceback__ is not None


# Others come first


async def ours(request: Request, error: Exception) -> Response:
    return JSONResponse({"ours": type(error).__name__}, 418)


@pytest.mark.parametrize("serve", [serve_fastapi, serve_starlette])
@pytest.mark.parametrize("key", [CommitUnknownError, Exception, 500])
@WAYS
async def test_a_handler_of_the_application_wins(
    flavour: Flavour, serve: Any, key: Any, way: Any
) -> None:
    app = serve(flavour, way(UNKNOWN), handlers={key: ours})

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.json) == (418, {"ours": "CommitUnknownError"})


@APPS
@WAYS
async def test_the_errors_are_raised_if_that_is_turned_off(
    flavour: Flavour, serve: Any, way: Any
) -> None:
    app = serve(flavour, way(UNKNOWN), answer_errors=False)

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, CommitUnknownError)


async def test_a_handler_that_raises_the_error_again_is_called_once(
    flavour: Flavour,
) -> None:
    seen = []

    async def passes_on(request: Request, error: Exception) -> Response:
        seen.append(error)
        raise error

    app = serve_fastapi(
        flavour, failing(UNKNOWN), handlers={CommitUnknownError: passes_on}
    )

    reply = await call(app, "POST", "/")

    check_answer(reply, 500, "urn:problem-type:unitwork:commit-unknown")
    assert len(seen) == 1


@pytest.mark.parametrize(("error", "status", "kind"), ERRORS)
async def test_the_ready_handlers_answer_the_same(
    flavour: Flavour, error: Any, status: int, kind: str
) -> None:
    without = await call(serve_starlette(flavour, raising(error)), "POST", "/")
    app = serve_fastapi(flavour, raising(error), handlers=exception_handlers)

    reply = await call(app, "POST", "/")

    check_answer(reply, status, kind)
    assert reply.json == without.json


async def test_that_of_an_unknown_outcome_claims_no_cause(flavour: Flavour) -> None:
    """The connection may have been lost, or SQL has committed past the session."""
    reply = await call(serve_starlette(flavour, raising(UNKNOWN)), "POST", "/")

    assert "nothing confirms that the change was committed" in reply.json["detail"]
    assert "connection" not in reply.json["detail"]


async def test_other_errors_are_raised_as_ever(flavour: Flavour) -> None:
    app = serve_starlette(flavour, raising(LookupError()))

    reply = await call(app, "POST", "/")

    assert (reply.body, type(reply.error)) == (b"Internal Server Error", LookupError)


async def test_an_error_after_the_start_cuts_the_response_short(
    flavour: Flavour,
) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise UNKNOWN

    reply = await call(DBSessionMiddleware(app, flavour.db), "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (200, False, UNKNOWN)


async def test_a_mounted_application_is_served_as_well(flavour: Flavour) -> None:
    outer: ASGIApp = Starlette()
    outer.add_middleware(DBSessionMiddleware, db=flavour.db)  # type: ignore[attr-defined]
    inner = FastAPI()
    inner.post("/")(flavour.endpoint(failing(UNKNOWN)))
    outer.mount("/", inner)  # type: ignore[attr-defined]

    reply = await call(outer, "POST", "/")

    check_answer(reply, 500, "urn:problem-type:unitwork:commit-unknown")
