"""P3: a COMMIT that fails is answered by the app's own handlers, in one response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.asgi import Message, Reply, call
from support.databases import check_nothing_is_left
from support.endpoints import serve_bare, serve_fastapi, serve_starlette, yielding
from support.flavours import POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import add_item, add_orphan
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    SessionEndedError,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork.retry import RetryPolicy

pytestmark = pytest.mark.anyio

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""

FRAMEWORKS = [serve_fastapi, serve_starlette]


def conflict(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "conflict"}, 409)


HANDLERS = {IntegrityError: conflict}


def fails_at_commit(session: Session) -> Response:
    add_item(session, "lost")
    add_orphan(session)
    return PlainTextResponse("created" * 500, 201)


def check_conflict(reply: Reply) -> None:
    assert (reply.status, reply.json) == (409, {"detail": "conflict"})
    assert (reply.complete, reply.error) == (True, None)


@pytest.fixture
def done() -> list[str]:
    """What the code under test has noted."""
    return []


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=5)
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


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


class PassOn(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: RequestResponseEndpoint
    ) -> Response:
        response = await call_next(request)
        response.headers["x-passed-on"] = "yes"
        return response


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


# What does not happen any more


@pytest.mark.parametrize("between", [[], [PassOn]], ids=["alone", "PassOn inside"])
async def test_background_tasks_of_the_dropped_response_do_not_run(
    flavour: Flavour, done: list[str], between: list[Any]
) -> None:
    def body(session: Session) -> Response:
        response = fails_at_commit(session)
        response.background = BackgroundTask(done.append, "mail sent")
        return response

    app = FastAPI(exception_handlers=HANDLERS)
    for middleware in between:
        app.add_middleware(middleware)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(body))

    check_conflict(await call(app, "POST", "/"))
    assert done == []


async def test_on_commit_hooks_do_not_run_but_on_rollback_hooks_do(
    flavour: Flavour, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> Response:
        unit = current_unit()
        units.append(unit)
        unit.on_commit(done.append, "committed")
        unit.on_rollback(done.append, "rolled back")
        return fails_at_commit(session)

    app = serve_fastapi(flavour, body, handlers=HANDLERS)

    check_conflict(await call(app, "POST", "/"))
    assert done == ["rolled back"]
    assert units[0].outcome is Outcome.ROLLED_BACK
    assert units[0].reason == "COMMIT failed: IntegrityError"


@everywhere
async def test_a_before_commit_hook_that_raises_is_a_failed_commit(
    flavour: Flavour, observer: Observer
) -> None:
    def refuse() -> None:
        raise LookupError("the books don't balance")

    def body(session: Session) -> Response:
        add_item(session)
        current_unit().before_commit(refuse)
        return PlainTextResponse("created")

    app = serve_fastapi(flavour, body, handlers={LookupError: conflict})

    check_conflict(await call(app, "POST", "/"))
    assert observer.names() == []


@FEW
@pytest.mark.parametrize("version", ["2.3", "2.4"])
async def test_a_stream_is_not_begun(
    flavour: Flavour, done: list[str], version: str
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        done.append("streamed")
        yield b"chunk"

    def body(session: Session) -> Response:
        fails_at_commit(session)
        return StreamingResponse(chunks())

    app = serve_fastapi(flavour, body, handlers=HANDLERS)
    asgi = {"version": "3.0", "spec_version": version}

    check_conflict(await call(app, "POST", "/", asgi=asgi))
    assert done == []


@pytest.mark.parametrize("handlers", [{}, HANDLERS], ids=["no handler", "handler"])
async def test_a_stream_whose_own_commit_fails_is_cut_short(
    flavour: Flavour, observer: Observer, done: list[str], handlers: Any
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await flavour.do(flavour.db.current, fails_at_commit)

    def body(session: Session) -> Response:
        add_item(session, "stored")
        task = BackgroundTask(done.append, "mail sent")
        return StreamingResponse(chunks(), background=task)

    app = serve_fastapi(flavour, body, handlers=handlers)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.body, reply.complete) == (200, b"first", False)
    assert reply.error is not None
    assert (observer.names(), done) == (["stored"], [])


# Dependencies with yield


@pytest.mark.parametrize("catch", [Exception, BaseException])
@pytest.mark.parametrize("scope", ["request", "function"])
async def test_dependencies_are_torn_down_and_can_not_hide_the_error(
    flavour: Flavour, done: list[str], scope: Any, catch: Any
) -> None:
    def after(session: Session) -> None:
        done.append("torn down")

    dependency = yielding(flavour, add_item, after, catch=catch)
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    depends = [Depends(dependency, scope=scope)]
    app.post("/", dependencies=depends)(flavour.endpoint(fails_at_commit))

    check_conflict(await call(app, "POST", "/"))
    assert done == ["torn down"]


@pytest.mark.parametrize("use", [add_item, Session.rollback, Session.close])
async def test_a_teardown_may_touch_the_session_that_failed(
    narrow: Flavour, observer: Observer, use: Callable[[Session], Any]
) -> None:
    dependency = yielding(narrow, lambda s: None, use)
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=narrow.db)
    depends = [Depends(dependency, scope="request")]
    app.post("/", dependencies=depends)(narrow.endpoint(fails_at_commit))

    for _ in range(2):
        check_conflict(await call(app, "POST", "/"))
    assert observer.names() == []


async def test_a_teardown_can_not_write_with_the_session_that_failed(
    flavour: Flavour, done: list[str]
) -> None:
    def after(session: Session) -> None:
        with pytest.raises(SessionEndedError, match=r"db\.transaction\(\)"):
            add_item(session)
        done.append("refused")

    dependency = yielding(flavour, lambda s: None, after)
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    depends = [Depends(dependency, scope="request")]
    app.post("/", dependencies=depends)(flavour.endpoint(fails_at_commit))

    check_conflict(await call(app, "POST", "/"))
    assert done == ["refused"]


@only(*POSTGRESQL)
async def test_a_dependency_with_a_block_of_its_own_takes_over_nobodys_session(
    flavour: Flavour, observer: Observer
) -> None:
    async def async_block() -> AsyncIterator[None]:
        async with flavour.db.transaction() as session:
            await session.run_sync(partial(add_item, name="own"))
            yield

    def block() -> Iterator[None]:
        with flavour.db.transaction() as session:
            add_item(session, "own")
            yield

    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    depends = [Depends(async_block if flavour.is_async else block)]
    app.post("/", dependencies=depends)(flavour.endpoint(fails_at_commit))

    check_conflict(await call(app, "POST", "/"))
    assert observer.names() == []


# The connection afterwards


def raise_before_commit(flavour: Flavour) -> Callable[[], None]:
    """Make COMMIT fail before it is sent; give what undoes that."""

    def refuse(connection: object) -> None:
        raise LookupError("a listener failed")

    event.listen(flavour.sync_engine, "commit", refuse)
    return partial(event.remove, flavour.sync_engine, "commit", refuse)


async def test_the_next_request_does_not_commit_what_failed(
    narrow: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session, "kept")

    app = serve_fastapi(narrow, fails_at_commit, handlers=HANDLERS)
    app.post("/next")(narrow.endpoint(body))

    check_conflict(await call(app, "POST", "/"))
    assert narrow.db.pool_status().checked_out == 0
    assert (await call(app, "POST", "/next")).status == 200
    assert (observer.names(), observer.children()) == (["kept"], 0)


async def test_the_next_request_does_not_commit_what_never_got_to_commit(
    narrow: Flavour, observer: Observer
) -> None:
    app = serve_fastapi(narrow, lambda s: add_item(s, "lost") and None)
    app.add_exception_handler(LookupError, conflict)
    app.post("/next")(narrow.endpoint(lambda s: add_item(s, "kept") and None))

    stop = raise_before_commit(narrow)
    check_conflict(await call(app, "POST", "/"))
    stop()

    assert observer.in_transaction() == []
    assert (await call(app, "POST", "/next")).status == 200
    assert observer.names() == ["kept"]


@pytest.fixture
async def second(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database once more, with another name."""
    db = type(flavour.db)(flavour.url, name="second", pool_size=1, max_overflow=0)
    second = Flavour(flavour.name, flavour.url, db)
    yield second
    await check_nothing_is_left(second)
    await second.dispose()


@only("psycopg-async", "asyncpg")
async def test_a_second_database_is_rolled_back_with_the_first(
    flavour: Flavour, second: Flavour, observer: Observer
) -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second.db])

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, add_orphan)
        await second.do(second.db.current, add_item)

    check_conflict(await call(app, "POST", "/"))
    assert observer.names() == []


@only("asyncpg")  # psycopg complains of the result that is never read
async def test_a_second_database_that_is_being_streamed_is_let_go(
    flavour: Flavour, second: Flavour
) -> None:
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second.db])

    @app.post("/")
    async def endpoint() -> Response:
        await flavour.do(flavour.db.current, add_orphan)
        many = text("SELECT generate_series(1, 10000)")
        rows = await second.db.current.stream(many)
        assert await rows.fetchone() == (1,)
        return StreamingResponse(str(row[0]) async for row in rows)

    check_conflict(await call(app, "POST", "/"))


# Handlers that read the request


async def with_body(request: Request, error: Exception) -> Response:
    return JSONResponse({"sent": (await request.body()).decode()}, 409)


def reading(app: Any) -> Any:
    """The application with an endpoint that has read its body, as most have."""

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
async def test_a_handler_can_read_the_body_again(
    flavour: Flavour, framework: Any
) -> None:
    app = framework(flavour, fails_at_commit, handlers={IntegrityError: with_body})

    reply = await call(reading(app), "POST", "/", body=b"a" * 1000)

    assert (reply.status, reply.json, reply.complete) == (
        409,
        {"sent": "a" * 1000},
        True,
    )


@FEW
async def test_a_body_that_was_too_large_to_keep_is_an_error_and_no_hang(
    flavour: Flavour,
) -> None:
    app = serve_fastapi(flavour, fails_at_commit, handlers={IntegrityError: with_body})

    limit = RetryPolicy().body_limit
    reply = await call(reading(app), "POST", "/", body=b"a" * (limit + 1))

    assert isinstance(reply.error, UsageError)
    assert f"more than {limit} bytes" in str(reply.error)
