"""P3: what does not happen after a COMMIT that fails, and what state it leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.responses import Response

from support.asgi import call
from support.databases import check_nothing_is_left
from support.endpoints import serve_fastapi, yielding
from support.failed_commits import PassOn, check_conflict, conflict, fails_at_commit
from support.flavours import FEW, POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import add_item, add_orphan, names
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    SessionEndedError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio


HANDLERS = {IntegrityError: conflict}


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
    done: list[list[str]] = []

    async def async_block() -> AsyncIterator[None]:
        async with flavour.db.transaction(read_only=True) as session:
            try:
                yield
            finally:
                done.append(await session.run_sync(names))

    def block() -> Iterator[None]:
        with flavour.db.transaction(read_only=True) as session:
            try:
                yield
            finally:
                done.append(names(session))

    app = FastAPI(exception_handlers=HANDLERS)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    depends = [Depends(async_block if flavour.is_async else block)]
    app.post("/", dependencies=depends)(flavour.endpoint(fails_at_commit))

    check_conflict(await call(app, "POST", "/"))
    assert (done, observer.names()) == ([[]], [])


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
