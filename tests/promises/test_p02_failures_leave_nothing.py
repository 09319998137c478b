"""P2: a request that failed leaves nothing behind, and a unit can say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import Message, call
from support.endpoints import (
    Body,
    serve_bare,
    serve_fastapi,
    serve_starlette,
    yielding,
)
from support.flavours import Flavour, Observer, everywhere, only
from support.models import add_item
from unitwork import (
    DBSessionMiddleware,
    Ending,
    Outcome,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""

FRAMEWORKS = [serve_fastapi, serve_starlette]


class OurError(Exception):
    pass


class PolicyError(Exception):
    pass


async def answer_ok(request: Request, error: Exception) -> Response:
    return PlainTextResponse("never mind")


def answer_teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": type(error).__name__}, 418)


HANDLERS = {OurError: answer_ok, PolicyError: answer_teapot}


def adding(then: Callable[[], Any], name: str = "one") -> Body:
    """Give a body that adds an item and does *then*."""

    def body(session: Session) -> Any:
        add_item(session, name)
        return then()

    return body


def raising(kind: type[Exception], *args: Any) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise kind(*args)

    return fail


def ok() -> Response:
    return PlainTextResponse("ok")


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


async def test_without_a_framework_an_exception_that_is_being_handled_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    async def bare(scope: Message, receive: Any, send: Any) -> None:
        session = await flavour.db.session(scope)
        try:
            await flavour.do(session, adding(raising(OurError)))
        except OurError:
            await PlainTextResponse("never mind")(scope, receive, send)

    reply = await call(DBSessionMiddleware(bare, flavour.db), "POST", "/")

    assert (reply.status, observer.names()) == (200, [])


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


# The policy


@FEW
async def test_the_policy_is_told_what_happened(flavour: Flavour) -> None:
    seen: list[Ending] = []

    def policy(ending: Ending) -> bool:
        seen.append(ending)
        return False

    body = adding(raising(HTTPException, 404))
    app = serve_fastapi(flavour, body, commit_when=policy)
    await call(app, "POST", "/?a=b")

    (ending,) = seen
    assert (ending.status, ending.method, ending.path) == (404, "POST", "/")
    assert isinstance(ending.exception, HTTPException)


@FEW
async def test_the_policy_of_the_middleware_decides(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware, db=flavour.db, commit_when=lambda e: e.status != 200
    )
    app.post("/bad")(flavour.endpoint(adding(raising(HTTPException, 400), "bad")))
    app.post("/good")(flavour.endpoint(adding(ok, "good")))

    replies = [await call(app, "POST", path) for path in ("/bad", "/good")]

    assert [reply.status for reply in replies] == [400, 200]
    assert observer.names() == ["bad"]


@FEW
async def test_the_policy_is_asked_once(flavour: Flavour, observer: Observer) -> None:
    asked: list[Ending] = []

    def policy(ending: Ending) -> bool:
        asked.append(ending)
        return True

    async def bare(scope: Message, receive: Any, send: Any) -> None:
        session = await flavour.db.session(scope)
        await flavour.do(session, partial(add_item, name="before"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await flavour.do(session, partial(add_item, name="meanwhile"))
        await send({"type": "http.response.body", "body": b""})

    app = DBSessionMiddleware(bare, flavour.db, commit_when=policy)
    await call(app, "POST", "/")

    assert len(asked) == 1
    assert observer.names() == ["before", "meanwhile"]


@FEW
@pytest.mark.parametrize("serve", FRAMEWORKS)
async def test_a_policy_that_raises_rolls_back_and_is_answered_by_the_handlers(
    flavour: Flavour, observer: Observer, serve: Any
) -> None:
    def policy(ending: Ending) -> bool:
        raise PolicyError

    app = serve(flavour, adding(ok), handlers=HANDLERS, commit_when=policy)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (418, True)
    assert reply.json == {"error": "PolicyError"}
    assert observer.names() == []


# What the unit says


@everywhere
async def test_rollback_only_keeps_the_response_and_drops_the_work(
    flavour: Flavour, observer: Observer
) -> None:
    units: list[UnitOfWork] = []

    def dry_run() -> Response:
        units.append(current_unit())
        current_unit().rollback_only("dry run")
        return ok()

    reply = await call(serve_fastapi(flavour, adding(dry_run)), "POST", "/")

    assert (reply.status, reply.body, observer.names()) == (200, b"ok", [])
    assert (units[0].outcome, units[0].reason) == (Outcome.ROLLED_BACK, "dry run")


FORBIDDEN = [
    pytest.param(raising(HTTPException, 401), id="raised"),
    pytest.param(partial(JSONResponse, {}, 401), id="returned"),
]


@FEW
@pytest.mark.parametrize("serve", FRAMEWORKS)
@pytest.mark.parametrize("refuse", FORBIDDEN)
async def test_commit_anyway_counts_the_failed_log_in(
    flavour: Flavour, observer: Observer, serve: Any, refuse: Any
) -> None:
    def log_in(session: Session) -> Any:
        add_item(session, "failed log-in")
        current_unit().commit_anyway()
        return refuse()

    reply = await call(serve(flavour, log_in), "POST", "/")

    assert (reply.status, observer.names()) == (401, ["failed log-in"])


async def test_commit_anyway_does_not_help_an_exception_nobody_handles(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().commit_anyway()
        raise OurError

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (500, [])


@FEW
@pytest.mark.parametrize("refuse", FORBIDDEN)
@pytest.mark.parametrize("order", ["rollback first", "commit first"])
async def test_rollback_only_wins_over_commit_anyway(
    flavour: Flavour, observer: Observer, refuse: Any, order: str
) -> None:
    def both() -> Any:
        calls = [current_unit().rollback_only, current_unit().commit_anyway]
        for ask in calls if order == "rollback first" else reversed(calls):
            ask()
        return refuse()

    reply = await call(serve_fastapi(flavour, adding(both)), "POST", "/")

    assert (reply.status, observer.names()) == (401, [])


async def test_rollback_only_from_a_before_commit_hook_counts(
    flavour: Flavour, observer: Observer
) -> None:
    def late() -> Response:
        unit = current_unit()
        unit.before_commit(unit.rollback_only, "checked: no")
        return ok()

    reply = await call(serve_fastapi(flavour, adding(late)), "POST", "/")

    assert (reply.status, observer.names()) == (200, [])


# Blocks inside the request


def nesting(flavour: Flavour, nested: str, *, fails: bool = True) -> Any:
    """A FastAPI endpoint: an item, then a block that adds one, raises, is swallowed."""
    inner = adding(raising(OurError) if fails else ok, "inner")

    async def endpoint() -> str:
        await flavour.do(flavour.db.current, partial(add_item, name="outer"))
        with suppress(OurError):
            await flavour.work(inner, nested=nested)
        return "fine"

    return endpoint


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


@everywhere
async def test_an_error_swallowed_around_a_joined_block_is_no_success(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "join"))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, OurError)
    assert observer.names() == []


async def test_the_app_can_answer_the_swallowed_error(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "join"))
    app.add_exception_handler(UnexpectedRollbackError, answer_teapot)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (418, True, None)
    assert observer.names() == []


async def test_a_joined_block_that_raised_hides_no_other_error(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.work(adding(raising(HTTPException, 422)), nested="join")

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, observer.names()) == (422, None, [])


async def test_commit_anyway_saves_nothing_from_a_joined_block_that_raised(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    endpoint = nesting(flavour, "join")

    @app.post("/", status_code=401)
    async def refuse() -> str:
        current_unit().commit_anyway()
        await endpoint()
        return "no"

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, observer.names()) == (401, None, [])


@everywhere
async def test_an_error_swallowed_around_a_savepoint_costs_the_savepoint_alone(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "savepoint"))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["outer"])


@everywhere
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_inside_the_request_is_lost_with_it(
    app: FastAPI, flavour: Flavour, observer: Observer, nested: str
) -> None:
    endpoint = nesting(flavour, nested, fails=False)

    @app.post("/")
    async def fail() -> None:
        await endpoint()
        raise HTTPException(400)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (400, [])


@everywhere
async def test_a_block_of_its_own_stays_though_the_request_fails(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.work(partial(add_item, name="audit"), nested="own")
        await flavour.do(flavour.db.current, add_item)
        raise HTTPException(400)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (400, ["audit"])


async def test_a_block_of_its_own_that_raised_costs_the_request_nothing(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        with pytest.raises(OurError):
            await flavour.work(adding(raising(OurError)), nested="own")
        await flavour.do(flavour.db.current, partial(add_item, name="mine"))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["mine"])


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
