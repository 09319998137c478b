"""Assertions on what a block does: statements, outcomes, nothing at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.asgi import call
from support.conflicts import Conflict
from support.endpoints import serve_fastapi
from support.flavours import Flavour, everywhere, only
from support.models import Item, add_item, names
from support.real_databases import real_databases
from unitwork import Database, UsageError, current_unit
from unitwork.testing import (
    assert_committed,
    assert_no_database,
    assert_queries,
    assert_rolled_back,
    no_waits,
)

pytestmark = pytest.mark.anyio

# Statements


@everywhere
async def test_counts_the_statements_of_a_request(flavour: Flavour) -> None:
    app = serve_fastapi(flavour, lambda s: add_item(s) and names(s))

    with assert_queries(2):
        await call(app, "POST", "/")


@everywhere
async def test_a_failure_lists_them(flavour: Flavour) -> None:
    with pytest.raises(AssertionError) as failure, assert_queries(0, flavour.db):
        await flavour.work(names)

    [first, second] = str(failure.value).splitlines()
    assert first == "1 statement was executed, and 0 expected:"
    assert second.startswith("  1. SELECT item.name")


@everywhere
async def test_none_at_all_is_a_failure_too(flavour: Flavour) -> None:
    missing = "^0 statements were executed, and 1 expected$"
    with pytest.raises(AssertionError, match=missing), assert_queries(1):
        pass


@everywhere
async def test_what_only_begins_or_ends_is_not_counted(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            names(session)

    with assert_queries(1):
        await flavour.work(body, isolation_level="SERIALIZABLE")


@everywhere
async def test_the_options_of_a_unit_are_not_counted(flavour: Flavour) -> None:
    with assert_queries(1):
        await flavour.work(names, lock_timeout=2.0)


@everywhere
async def test_many_sets_of_parameters_are_one_statement(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        rows = [{"name": name} for name in "abc"]
        session.connection().execute(Item.__table__.insert(), rows)

    with pytest.raises(AssertionError, match="VALUES"), assert_queries(0):
        await flavour.work(body)


def test_plain_engines_count() -> None:
    engine = create_engine("sqlite://")

    with assert_queries(1), engine.connect() as connection:
        connection.execute(text("SELECT 1"))

    engine.dispose()


@only("sqlite3", "asyncpg")
async def test_only_the_databases_that_are_named(flavour: Flavour) -> None:
    other = flavour.another(name="other")

    with assert_queries(1, other.db), assert_queries(2), assert_queries(1, flavour.db):
        await other.work(names)
        await flavour.work(names)

    await other.dispose()


@only("sqlite3")
async def test_an_exception_goes_first(flavour: Flavour) -> None:
    with pytest.raises(LookupError), assert_queries(1):
        raise LookupError


@only("psycopg", "asyncpg", "pymysql")
async def test_databases_that_are_made_meanwhile_do_not_count(flavour: Flavour) -> None:
    with assert_no_database(), real_databases(flavour) as databases:
        (await asyncio.to_thread(databases.take)).give_back()


@pytest.mark.parametrize("wrong", [-1, True, "2"])
def test_a_number_of_statements_is_a_number(wrong: Any) -> None:
    with pytest.raises(UsageError, match="give the number of"), assert_queries(wrong):
        pass


# Nothing at all


@everywhere
async def test_a_statement_is_a_use(flavour: Flavour) -> None:
    used = "the database was used.*\n  1. SELECT item.name"
    with pytest.raises(AssertionError, match=used), assert_no_database(flavour.db):
        await flavour.work(names)


@everywhere
async def test_a_connection_alone_is_a_use(flavour: Flavour) -> None:
    def connect(session: Session) -> None:
        session.connection()

    taken = "a connection was taken"
    with pytest.raises(AssertionError, match=taken), assert_no_database():
        await flavour.work(connect)


@everywhere
async def test_a_session_that_is_not_used_is_no_use(flavour: Flavour) -> None:
    with assert_no_database():
        reply = await call(serve_fastapi(flavour, lambda session: 1), "POST", "/")

    assert reply.status == 200


# Outcomes


@everywhere
async def test_a_request_that_commits(flavour: Flavour) -> None:
    with assert_committed(flavour.db):
        await call(serve_fastapi(flavour, add_and_forget), "POST", "/")


def add_and_forget(session: Session) -> None:
    add_item(session)


def refuse(session: Session) -> None:
    add_item(session)
    raise HTTPException(409)


@everywhere
async def test_a_request_that_rolls_back(flavour: Flavour) -> None:
    app = serve_fastapi(flavour, refuse)

    with assert_rolled_back("HTTPException"):
        await call(app, "POST", "/")
    not_all = r"not all units .* committed:\n  1. POST /: rolled back \(HTTPException"
    with pytest.raises(AssertionError, match=not_all), assert_committed():
        await call(app, "POST", "/")


@everywhere
async def test_another_reason(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().rollback_only("dry run")

    with assert_rolled_back("dry run"):
        await call(serve_fastapi(flavour, body), "POST", "/")
    with (
        pytest.raises(AssertionError, match="rolled back because of 'status 409'"),
        assert_rolled_back("status 409"),
    ):
        await call(serve_fastapi(flavour, body), "POST", "/")


@everywhere
async def test_a_block_that_raises(flavour: Flavour) -> None:
    def fail(session: Session) -> None:
        add_item(session)
        raise LookupError

    with pytest.raises(LookupError), assert_rolled_back("LookupError"):
        await flavour.work(fail)


@everywhere
async def test_a_block_that_raises_after_its_commit(flavour: Flavour) -> None:
    async def work() -> None:
        with assert_rolled_back():
            await flavour.work(add_item)
            raise LookupError

    with pytest.raises(AssertionError, match="block: committed"):
        await work()


@everywhere
async def test_a_commit_by_hand(flavour: Flavour) -> None:
    def commit(session: Session) -> None:
        add_item(session)
        session.commit()

    with assert_committed():
        await call(serve_fastapi(flavour, commit), "POST", "/")


@only("aiosqlite", "asyncpg")
async def test_an_attempt_before_the_last_one_is_no_end(flavour: Flavour) -> None:
    async def work(session: AsyncSession) -> None:
        await session.run_sync(add_and_forget)
        if not current_unit().is_last_attempt:
            raise Conflict

    with assert_committed(), no_waits():
        await flavour.db.run(work, attempts=3)


@everywhere
async def test_nothing_is_no_success(flavour: Flavour) -> None:
    none = "no unit of work was committed: none"
    with pytest.raises(AssertionError, match=none), assert_committed():
        await flavour.work(lambda session: None)


def test_nothing_is_no_failure() -> None:
    none = "no unit of work was rolled back: none"
    with pytest.raises(AssertionError, match=none), assert_rolled_back():
        pass


def test_only_databases_have_outcomes() -> None:
    wrong: Any = "sqlite://"
    with pytest.raises(UsageError, match="is no database"), assert_committed(wrong):
        pass


def test_a_reason_comes_first() -> None:
    wrong: Any = Database("sqlite://")
    first = "write the reason first"
    with pytest.raises(UsageError, match=first), assert_rolled_back(wrong):
        pass
