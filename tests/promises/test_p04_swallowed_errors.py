"""P4: what the server rolled back behind our back is never reported as committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import MARIADB, Flavour, Observer, everywhere, only
from support.models import Item, add_item
from support.swallowing import core, plain_text, post, write_and_swallow, wrong_sql
from unitwork import DatabaseSettings, DBSessionMiddleware, UnexpectedRollbackError


def flush(session: Session) -> None:
    session.add(Item(name="one"))
    session.flush()


@only("psycopg", "psycopg-async", "asyncpg")
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql, flush])
async def test_a_swallowed_statement_error_is_no_success(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    reply = await post(flavour, write_and_swallow(failing))

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, DBAPIError)
    assert observer.names() == []


@only("aiosqlite", "asyncpg")
@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_an_error_that_a_task_group_has_raised_is_no_success(
    flavour: Flavour, observer: Observer, spec: str
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> None:
        session: AsyncSession = flavour.db.current
        await session.run_sync(add_item)
        with suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(session.run_sync(add_item))

    version = {"version": "3.0", "spec_version": spec}
    reply = await asyncio.create_task(call(app, "POST", "/", asgi=version))

    assert (reply.status, reply.complete, observer.names()) == (500, True, [])


@only("sqlite3", "aiosqlite", *MARIADB)
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql])
async def test_others_keep_the_work_before_a_swallowed_statement_error(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    reply = await post(flavour, write_and_swallow(failing))

    assert (reply.status, observer.names()) == (200, ["one"])


@only("sqlite3", "aiosqlite")
@pytest.mark.parametrize("later", [wrong_sql, lambda session: add_item(session, "two")])
async def test_what_sqlite_has_rolled_back_by_itself_is_no_success(
    flavour: Flavour, observer: Observer, later: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError, match="UNIQUE"):
            session.execute(text("INSERT OR ROLLBACK INTO item (name) VALUES ('one')"))
        with suppress(UnexpectedRollbackError):
            later(session)  # SQLite would commit it at once, outside any transaction

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)
    assert (reply.status, observer.names()) == (500, [])


FILL = """
WITH RECURSIVE one (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM one WHERE n < 1000)
INSERT INTO item (name) SELECT printf('%0100d', n) FROM one
"""


@pytest.mark.filterwarnings("ignore::unitwork.SessionStateWarning")
@only("sqlite3", "aiosqlite")
async def test_sqlite_keeps_the_work_before_a_disk_that_was_full(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("PRAGMA max_page_count = 1"))  # no more than there are
        with pytest.raises(DBAPIError, match="full"):
            session.execute(text(FILL))

    small = flavour.another(pool_size=1, max_overflow=0)
    reply = await post(small, body)
    await small.dispose()

    assert (reply.status, observer.names()) == (200, ["one"])


@only("sqlite3", "aiosqlite")
async def test_an_error_before_sqlites_driver_has_begun_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with pytest.raises(DBAPIError):
            wrong_sql(session)
        add_item(session)

    legacy = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    reply = await post(legacy, body)
    await legacy.dispose()

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
async def test_a_swallowed_flush_error_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await post(flavour, write_and_swallow(flush))

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)
    assert (reply.status, observer.names()) == (500, [])


@everywhere
@pytest.mark.parametrize("failing", [core, plain_text, wrong_sql, flush])
async def test_an_error_that_a_savepoint_undid_does_not_matter(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError), session.begin_nested():
            failing(session)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
@pytest.mark.parametrize("failing", [core, flush])
async def test_after_a_rollback_of_its_own_the_application_may_go_on(
    flavour: Flavour, observer: Observer, failing: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        write_and_swallow(failing)(session)
        session.rollback()
        add_item(session, "two")

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["two"])


@only("psycopg", "psycopg-async", "asyncpg")
async def test_a_commit_by_the_application_itself_is_refused_as_well(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        write_and_swallow(core)(session)
        session.commit()

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_a_transaction_block_raises_too(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(UnexpectedRollbackError) as caught:
        await flavour.work(write_and_swallow(core))

    assert isinstance(caught.value.__cause__, IntegrityError)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_an_answer_that_is_an_error_anyway_stays(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> JSONResponse:
        write_and_swallow(core)(session)
        return JSONResponse({"detail": "taken"}, 409)

    reply = await post(flavour, body)

    assert (reply.status, reply.json, reply.error) == (409, {"detail": "taken"}, None)
    assert observer.names() == []


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_application_can_answer_it(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(write_and_swallow(core)))

    @app.exception_handler(UnexpectedRollbackError)
    async def sorry(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"lost": type(error.__cause__).__name__}, 503)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.json) == (503, {"lost": "IntegrityError"})


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_cause_is_the_first_error_and_not_what_followed_from_it(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        for failing in (core, plain_text, wrong_sql):
            with pytest.raises(DBAPIError):
                failing(session)

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, IntegrityError)


@only("asyncpg")
async def test_a_value_that_never_reached_the_server_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError):
            session.execute(insert(Item).values(name=object()))

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])
