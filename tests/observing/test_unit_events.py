"""The events of a unit: which come, in which order, and what they say."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from support.asgi import Reply, call
from support.driver_errors import postgresql, wrapped
from support.flavours import ASYNC, Flavour, everywhere, only
from support.models import add_item
from support.recording import Recorder, recording
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    UsageError,
    current_unit,
    transactional,
)
from unitwork.events import (
    CommitAnswered,
    ConnectionReturned,
    ConnectionTaken,
    HookFailed,
    ResponseCompleted,
    ResponseStarted,
    StatementExecuted,
    UnitBegun,
    UnitEnded,
    UnitRetried,
    UnitSettled,
)

pytestmark = pytest.mark.anyio


def add(session: Session) -> None:
    add_item(session)


def add_two(session: Session) -> None:
    add_item(session, "two")


def app_of(flavour: Flavour, endpoint: Any, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    app.post("/items/{id}", status_code=201)(endpoint)
    return app


async def post(flavour: Flavour, endpoint: Any, **options: Any) -> Reply:
    return await call(app_of(flavour, endpoint, **options), "POST", "/items/1")


@everywhere
async def test_a_request_is_told_from_its_session_to_its_last_byte(
    flavour: Flavour,
) -> None:
    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(add))

    assert recorder.story == [
        "UnitBegun",
        "ConnectionTaken",
        "TransactionBegun",
        "StatementExecuted",
        "CommitSent",
        "CommitAnswered",
        "ConnectionReturned",
        "UnitSettled",
        "ResponseStarted",
        "UnitEnded",
        "ResponseCompleted",
    ]


@everywhere
async def test_a_block_has_the_same_events_without_a_response(flavour: Flavour) -> None:
    with recording(flavour.db) as recorder:
        await flavour.work(add)

    assert recorder.story[-2:] == ["UnitSettled", "UnitEnded"]
    assert recorder.one(UnitBegun).unit.kind == "block"


@only("sqlite3", "asyncpg")
async def test_a_unit_knows_its_request_and_its_route(flavour: Flavour) -> None:
    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(add))

    unit = recorder.one(UnitEnded).unit
    assert (unit.kind, unit.method, unit.path) == ("request", "POST", "/items/1")
    assert (unit.route, unit.databases) == ("/items/{id}", ("default",))
    assert unit.description == "POST /items/{id}"
    assert {event.unit for event in recorder.of(UnitSettled)} == {unit}


@only("sqlite3", "asyncpg")
async def test_a_connection_is_taken_by_a_line_of_the_application(
    flavour: Flavour,
) -> None:
    def read(session: Session) -> None:
        session.execute(text("SELECT 1"))

    with recording(flavour.db) as recorder:
        await flavour.work(read)

    taken, returned = recorder.one(ConnectionTaken), recorder.one(ConnectionReturned)
    assert str(taken.call_site).startswith("tests/")
    assert 0 <= taken.waited <= taken.at - taken.unit.started
    assert returned.held >= returned.idle > 0


@only("sqlite3", "asyncpg")
async def test_the_end_has_the_outcome_its_reason_and_the_use(flavour: Flavour) -> None:
    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(add))

    ended = recorder.one(UnitEnded)
    assert (ended.outcome, ended.reason) == (Outcome.COMMITTED, "status 201")
    assert ended.use.connections == 1
    assert ended.duration >= ended.use.held > 0
    assert ended.error is ended.sqlstate is None


@only("sqlite3", "asyncpg")
async def test_an_error_of_the_database_is_in_the_end(flavour: Flavour) -> None:
    def fail(session: Session) -> None:
        session.execute(text("SELECT * FROM nothing"))

    with recording(flavour.db) as recorder, pytest.raises(Exception, match="nothing"):
        await flavour.work(fail)

    ended = recorder.one(UnitEnded)
    assert ended.outcome is Outcome.ROLLED_BACK
    assert ended.sqlstate in ("42P01", "1")


@only("sqlite3", "asyncpg")
async def test_a_handled_exception_is_the_error_of_its_request(
    flavour: Flavour,
) -> None:
    def refuse(session: Session) -> None:
        add(session)
        raise HTTPException(409)

    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(refuse))

    ended = recorder.one(UnitEnded)
    assert ended.reason == "HTTPException was raised"
    assert isinstance(ended.error, HTTPException)
    assert recorder.one(ResponseStarted).status == 409


@only("sqlite3", "asyncpg")
async def test_the_text_of_a_statement_is_for_those_who_request_it(
    flavour: Flavour,
) -> None:
    with (
        recording(flavour.db) as without,
        recording(flavour.db, show_sql=True) as with_text,
    ):
        await flavour.work(add)

    assert without.one(StatementExecuted).statement == ""
    assert with_text.one(StatementExecuted).statement.startswith("INSERT INTO item")


@only(*ASYNC)
async def test_a_hook_that_fails_is_reported(flavour: Flavour) -> None:
    def fail() -> None:
        raise LookupError

    def endpoint(session: Session) -> None:
        add(session)
        current_unit().on_commit(fail)

    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(endpoint))

    failed = recorder.one(HookFailed)
    assert failed.name.endswith("fail")
    assert isinstance(failed.error, LookupError)


@only("asyncpg")
async def test_each_attempt_is_a_unit_and_a_retry_comes_after_its_end(
    flavour: Flavour,
) -> None:
    attempts = []

    @transactional(attempts=2)
    async def endpoint() -> None:
        await flavour.db.current.run_sync(add)
        attempts.append(1)
        if len(attempts) == 1:
            await flavour.db.current.execute(
                text("DO $$BEGIN RAISE SQLSTATE '40001'; END$$")
            )

    with recording(flavour.db) as recorder:
        await post(flavour, endpoint)

    first, second = recorder.of(UnitEnded)
    retried = recorder.one(UnitRetried)
    assert (first.unit.attempt, second.unit.attempt) == (1, 2)
    assert (first.outcome, first.sqlstate) == (Outcome.ROLLED_BACK, "40001")
    assert second.outcome is Outcome.COMMITTED
    assert retried.unit is first.unit
    assert recorder.story.index("UnitEnded") < recorder.story.index("UnitRetried")


@only(*ASYNC)
async def test_run_reports_its_retries_as_well(
    flavour: Flavour, recorder: Recorder
) -> None:
    async def work(session: Any) -> None:
        await session.run_sync(add)
        if current_unit().attempt == 1:
            raise wrapped(postgresql("40001"))

    await flavour.db.run(work, attempts=2)

    assert [each.unit.attempt for each in recorder.of(UnitRetried)] == [1]


@only("asyncpg")
async def test_a_stream_that_writes_is_settled_before_its_last_chunk(
    flavour: Flavour,
) -> None:
    async def endpoint() -> StreamingResponse:
        async def body() -> Any:
            yield "a"
            await flavour.db.current.run_sync(add)
            yield "b"

        current_unit()
        return StreamingResponse(body())

    with recording(flavour.db) as recorder:
        await post(flavour, endpoint)

    assert recorder.story[-4:] == [
        "ConnectionReturned",
        "UnitSettled",
        "UnitEnded",
        "ResponseCompleted",
    ]
    assert recorder.one(ResponseCompleted).complete


@only("asyncpg")
async def test_a_background_unit_has_the_request_for_its_parent(
    flavour: Flavour,
) -> None:
    async def later() -> None:
        await flavour.work(add_two)

    async def endpoint(tasks: BackgroundTasks) -> None:
        await flavour.db.current.run_sync(add)
        tasks.add_task(later)

    with recording(flavour.db, only=[UnitBegun]) as recorder:
        await post(flavour, endpoint)

    request, block = [each.unit for each in recorder.of(UnitBegun)]
    assert (request.kind, block.kind) == ("request", "block")
    assert block.parent == request.id < block.id


@only("psycopg", "asyncpg")
async def test_a_commit_that_is_refused_has_its_error(flavour: Flavour) -> None:
    deferred = """CREATE TEMPORARY TABLE once (
        id INT PRIMARY KEY DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"""

    def endpoint(session: Session) -> None:
        session.execute(text(deferred))
        session.execute(text("INSERT INTO once VALUES (1), (1)"))

    with recording(flavour.db) as recorder:
        await post(flavour, flavour.endpoint(endpoint))

    answered, ended = recorder.one(CommitAnswered), recorder.one(UnitEnded)
    assert answered.error is not None
    assert (ended.outcome, ended.sqlstate) == (Outcome.ROLLED_BACK, "23505")
    assert ended.reason.startswith("COMMIT failed")


@only("aiosqlite")
async def test_a_block_that_can_not_be_entered_has_an_end(
    flavour: Flavour, recorder: Recorder
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add)
        with pytest.raises(UsageError):
            await flavour.work(add)

    assert len(recorder.of(UnitBegun)) == len(recorder.of(UnitEnded)) == 2
