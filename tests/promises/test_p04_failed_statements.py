"""P4: a statement that commits and then fails has rolled nothing back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.asgi import call
from support.driver import send_and_swallow
from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, only
from support.models import add_item
from support.swallowing import post_noting_unit
from unitwork import (
    CommitUnknownError,
    DBSessionMiddleware,
    Outcome,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio

each_ddl = pytest.mark.parametrize(
    "statement",
    [
        *("CREATE TABLE item (id int)", "DROP TABLE nowhere", "TRUNCATE nowhere"),
        *("/* why */ ALTER TABLE item ADD name int", "RENAME TABLE a TO b"),
    ],
)
SEVERAL = [
    "COMMIT; SELECT 1 / 0",
    "COMMIT; BEGIN; SELECT 1 / 0",
    "COMMIT; BEGIN; SELECT 1 / 0; COMMIT",
]


@only(*MARIADB)
@each_ddl
async def test_ddl_that_fails_has_committed_what_came_before(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text(statement))

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
@each_ddl
async def test_to_swallow_its_error_is_no_success_and_no_rollback(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(Exception):
            session.execute(text(statement))

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
@pytest.mark.parametrize("end", [str, Session.rollback, Session.commit])
async def test_nor_if_it_has_failed_in_the_drivers_connection(
    flavour: Flavour, observer: Observer, end: type[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send_and_swallow(session, "DROP TABLE nowhere")
        end(session)

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
async def test_nor_if_the_request_fails_then(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send_and_swallow(session, "DROP TABLE nowhere")
        raise HTTPException(400)

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_nor_inside_a_block_that_joins(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, add_item)
        with suppress(Exception):
            async with flavour.block(nested=nested) as session:
                await flavour.do(session, drop)

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, CommitUnknownError)
    assert observer.names() == ["one"]


def drop(session: Session) -> None:
    session.execute(text("DROP TABLE nowhere"))


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement", ["CREATE TABEL", "SET STATEMENT max_statement_time=1 FOR DROP"]
)
async def test_what_the_server_has_not_begun_to_execute_costs_nothing(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(Exception):
            session.execute(text(statement))

    reply, _ = await post_noting_unit(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@only("psycopg", "psycopg-async")  # asyncpg's adapter sends one statement at a time
@pytest.mark.parametrize("statements", SEVERAL)
async def test_of_several_statements_one_may_have_committed(
    flavour: Flavour, observer: Observer, statements: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text(statements))

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
@pytest.mark.parametrize("statements", SEVERAL[1:])
async def test_a_swallowed_error_behind_a_commit_is_no_rollback(
    flavour: Flavour, observer: Observer, statements: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send_and_swallow(session, statements)

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_a_text_commit_that_the_server_refuses_is_a_rollback(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("INSERT INTO child (parent_id) VALUES (999)"))
        with suppress(Exception):
            session.execute(text("COMMIT"))

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert unit.outcome is Outcome.ROLLED_BACK
    assert observer.names() == []


@only("psycopg-async", "asyncpg", "asyncmy")
async def test_a_text_commit_that_is_cancelled_is_in_doubt(flavour: Flavour) -> None:
    units: list[UnitOfWork] = []
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)

    @app.post("/")
    async def endpoint() -> None:
        units.append(current_unit())
        session = flavour.db.current
        await flavour.do(session, add_item)
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await session.execute(text("COMMIT"))

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, CommitUnknownError)
    assert units[0].outcome is Outcome.UNKNOWN
