"""The test kit: COMMITs that fail on cue, and databases that are to be idle."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.asgi import call
from support.crowds import Crowded
from support.endpoints import serve_fastapi
from support.flavours import Flavour, Observer, everywhere, only
from support.guarding import connected
from support.holding import running
from support.models import add_item, names
from support.pool import check_pool_is_whole
from unitwork import (
    CommitUnknownError,
    DBSessionMiddleware,
    Outcome,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork.testing import CommitFault, check_idle, commit_faults

pytestmark = pytest.mark.anyio

# COMMITs that fail

BOTH_WAYS = pytest.mark.parametrize(
    ("fault", "stored"),
    [(CommitFault.ROLLED_BACK, []), (CommitFault.COMMITTED, ["one"])],
)


def write(session: Session) -> None:
    add_item(session)


@everywhere
@BOTH_WAYS
async def test_a_fault_leaves_the_client_in_doubt(
    unsure: Flavour, observer: Observer, fault: CommitFault, stored: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)

    app = serve_fastapi(unsure, body, answer_errors=False)
    with commit_faults(unsure.db, fault):
        reply = await call(app, "POST", "/")

    assert (reply.status, type(reply.error)) == (500, CommitUnknownError)
    assert (observer.names(), units[0].outcome) == (stored, Outcome.UNKNOWN)
    await check_pool_is_whole(unsure)


@only("psycopg", "psycopg-async", "asyncpg")
@BOTH_WAYS
async def test_the_database_knows_which_fault_it_was(
    flavour: Flavour, observer: Observer, fault: CommitFault, stored: list[str]
) -> None:
    done: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(done.extend, stored)

    with commit_faults(flavour.db, fault):
        reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert reply.status == (200 if stored else 500)
    assert observer.names() == done == stored


@everywhere
async def test_faults_come_in_order_and_then_no_more(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve_fastapi(flavour, lambda s: add_item(s, f"{len(names(s))}") and None)

    with commit_faults(flavour.db, None, CommitFault.ROLLED_BACK):
        statuses = [(await call(app, "POST", "/")).status for _ in range(4)]

    assert statuses == [200, 500, 200, 200]
    assert observer.names() == ["0", "1", "2"]


@everywhere
async def test_an_exception_is_the_answer_of_a_database_that_refuses(
    flavour: Flavour, observer: Observer
) -> None:
    refusal = OperationalError("COMMIT", None, Exception("no"))

    with commit_faults(flavour.db, refusal):
        reply = await call(serve_fastapi(flavour, write), "POST", "/")

    assert (reply.status, reply.error) == (500, refusal)
    assert observer.names() == []


@only("aiosqlite", "psycopg")
async def test_a_fault_that_found_no_commit_fails_the_test(flavour: Flavour) -> None:
    def refuse(session: Session) -> None:
        add_item(session)
        raise HTTPException(400)

    async def test() -> None:
        with commit_faults(flavour.db, None, CommitFault.COMMITTED):
            for body in (write, refuse):
                await call(serve_fastapi(flavour, body), "POST", "/")

    with pytest.raises(AssertionError, match="1 of 2 faults found no COMMIT"):
        await test()


def test_a_fault_is_one_of_three_things(flavour: Flavour) -> None:
    wrong: Any = True

    with (
        pytest.raises(UsageError, match="True is no fault; give a CommitFault"),
        commit_faults(flavour.db, wrong),
    ):
        pass


# Databases that are to be idle


@everywhere
async def test_a_database_is_idle_before_a_unit_and_after_it(flavour: Flavour) -> None:
    check_idle(flavour.db)

    await flavour.work(add_item)

    check_idle(flavour.db, flavour.db)


@everywhere
async def test_a_database_with_an_open_unit_is_not_idle(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        names(session)
        check_idle(flavour.db)

    busy = "'default' is not idle: connections checked out: 1, units of work open: 1"
    with pytest.raises(AssertionError, match=busy):
        await flavour.work(body)


@everywhere
async def test_a_database_is_not_idle_while_a_connection_is_out(
    flavour: Flavour,
) -> None:
    async with connected(flavour.db.engine):
        with pytest.raises(AssertionError, match=r"idle: connections checked out: 1$"):
            check_idle(flavour.db)


@only("sqlite3", "psycopg", "pymysql")
async def test_a_sync_unit_that_has_yet_to_connect_holds_a_permit(
    flavour: Flavour,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def endpoint(request: Request) -> None:
        await flavour.db.session(request)
        check_idle(flavour.db)

    reply = await call(app, "GET", "/")

    found = "database 'default' is not idle: units of work open: 1, permits held: 1"
    assert str(reply.error) == found


@only("sqlite3", "psycopg")
async def test_a_database_is_not_idle_while_a_unit_waits(flavour: Flavour) -> None:
    async with (
        Crowded(flavour) as crowded,
        running(crowded.flavour.work(names)) as waiting,
    ):
        await crowded.waiting(1)
        with pytest.raises(AssertionError, match="units of work waiting: 1"):
            check_idle(crowded.flavour.db)
        await crowded.release()
        await waiting


@only("aiosqlite")
async def test_the_database_that_is_not_idle_is_named(flavour: Flavour) -> None:
    other = flavour.another(name="other")

    async with other.block() as session:
        await other.do(session, names)
        with pytest.raises(AssertionError, match="database 'other' is not idle"):
            check_idle(flavour.db, other.db)

    check_idle(flavour.db, other.db)
    await other.dispose()


def test_only_a_database_can_be_idle() -> None:
    wrong: Any = "sqlite://"

    with pytest.raises(UsageError, match="is no database; give a Database"):
        check_idle(wrong)
