"""Several databases of one middleware."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from psycopg.errors import SerializationFailure
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.flavours import only
from support.models import Item, add_item, add_orphan
from support.pages import statements
from support.several import Two, add, fail
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    Outcome,
    PartialCommitError,
    TransactionOptions,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

pairs = only("sqlite3", "psycopg", "asyncpg")
"""The first database; the second is an SQLite file, of either colour."""


def add_unflushed(session: Session) -> None:
    session.add(Item(name="one"))


# One middleware, several databases


@pairs
async def test_both_are_committed(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)

    reply = await two.request(endpoint)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert two.seen() == (["one"], ["one"])


@pairs
async def test_both_are_rolled_back(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        raise HTTPException(409)

    reply = await two.request(endpoint)

    assert reply.status == 409
    assert two.seen() == ([], [])


@pairs
async def test_one_that_was_not_used_is_left_alone(two: Two) -> None:
    async def endpoint() -> None:
        await two.second.do(two.second.db.current, add)

    with statements(two.first.db.engine) as sent:
        reply = await two.request(endpoint)

    assert (reply.status, sent) == (200, [])
    assert two.seen() == ([], ["one"])


@pairs
async def test_each_is_an_attribute_of_the_state_and_the_first_is_db(two: Two) -> None:
    found: list[Any] = []

    async def endpoint(request: Request) -> None:
        found.append(request.state.db is await two.first.db.session())
        found.append(request.state.default is request.state.db)
        found.append(request.state.second is await two.second.db.session())
        found.append(hasattr(request.state, "third"))

    assert (await two.request(endpoint)).status == 200
    assert found == [True, True, True, False]


@pairs
async def test_the_attribute_may_have_another_name(two: Two) -> None:
    found: list[Any] = []

    async def endpoint(request: Request) -> None:
        found.append(request.state.session is two.first.db.current)
        found.append(hasattr(request.state, "db"))

    assert (await two.request(endpoint, state_attribute="session")).status == 200
    assert found == [True, False]


@pairs
async def test_each_is_a_dependency_of_its_own(two: Two) -> None:
    first, second = Depends(two.first.db.session), Depends(two.second.db.session)

    def endpoint(one: Any = first, other: Any = second) -> None:
        one.add(Item(name="of the first"))
        other.add(Item(name="of the second"))

    assert (await two.request(endpoint)).status == 200
    assert two.seen() == (["of the first"], ["of the second"])


@pairs
async def test_they_are_committed_in_the_order_in_which_they_were_given(
    two: Two,
) -> None:
    async def endpoint() -> None:
        await two.second.do(two.second.db.current, add)
        await two.first.do(two.first.db.current, add)

    commits: list[object] = []
    for one in (two.first, two.second):
        event.listen(one.sync_engine, "commit", lambda c: commits.append(c.dialect))
    await two.request(endpoint)

    engines = two.first.sync_engine, two.second.sync_engine
    assert commits == [engine.dialect for engine in engines]


@pairs
async def test_a_second_that_fails_at_flush_leaves_nothing_in_the_first(
    two: Two,
) -> None:
    await two.second.work(add)

    async def endpoint() -> None:
        await two.do_both(add, add_unflushed)

    reply = await two.request(endpoint)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert two.seen() == ([], ["one"])


@pairs
async def test_a_second_that_fails_at_commit_says_that_the_first_stands(
    two: Two,
) -> None:
    units = []

    async def endpoint() -> None:
        units.append(current_unit())
        await two.do_both(add, add_orphan)

    reply = await two.request(endpoint)

    error = reply.error
    assert isinstance(error, PartialCommitError)
    assert (reply.status, type(error.__cause__)) == (500, IntegrityError)
    assert (error.committed, error.rolled_back) == (("default",), ("second",))
    assert error.unknown == ()
    assert "(committed: 'default'; rolled back: 'second')" in str(error)
    assert (units[0].outcome, units[0].reason) == (Outcome.PARTIAL, str(error))
    assert two.seen() == (["one"], [])


@pairs
async def test_a_partial_commit_calls_the_hooks_for_the_unknown(two: Two) -> None:
    done: list[str] = []

    async def endpoint() -> None:
        await two.do_both(add, add_orphan)
        for kind in ("on_commit", "on_rollback", "on_unknown"):
            getattr(current_unit(), kind)(done.append, kind)

    await two.request(endpoint)

    assert done == ["on_unknown"]


@pairs
async def test_a_partial_commit_is_never_tried_again(two: Two) -> None:
    attempts: list[int] = []

    async def endpoint() -> None:
        attempts.append(current_unit().attempt)
        await two.do_both(add, add)

    def fails(connection: object) -> None:
        raise OperationalError("COMMIT", None, SerializationFailure())

    event.listen(two.second.sync_engine, "commit", fails)
    options = TransactionOptions(attempts=3)
    reply = await two.request(endpoint, options=options)

    assert type(reply.error) is PartialCommitError
    assert attempts == [1]
    assert two.seen() == (["one"], [])


@pairs
async def test_a_first_that_fails_at_commit_leaves_nothing_in_the_second(
    two: Two,
) -> None:
    async def endpoint() -> None:
        await two.do_both(add_orphan, add)

    reply = await two.request(endpoint)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert not hasattr(reply.error, "__notes__")
    assert two.seen() == ([], [])


@pairs
async def test_they_share_one_unit_and_its_hooks(two: Two) -> None:
    done: list[Any] = []

    async def endpoint() -> None:
        await two.do_both(add, add)
        current_unit().on_commit(lambda: done.append(two.seen()))

    await two.request(endpoint)

    assert done == [(["one"], ["one"])]


@pairs
async def test_rollback_only_is_for_both(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        current_unit().rollback_only()

    assert (await two.request(endpoint)).status == 200
    assert two.seen() == ([], [])


@pairs
async def test_a_swallowed_error_in_one_is_no_success_for_the_other(two: Two) -> None:
    async def endpoint() -> None:
        await two.do_both(add, add)
        with suppress(LookupError):
            await two.second.work(fail, nested="join")

    reply = await two.request(endpoint)

    assert type(reply.error) is UnexpectedRollbackError
    assert two.seen() == ([], [])


@pairs
async def test_a_block_of_one_is_found_beside_the_request_of_the_other(
    two: Two,
) -> None:
    async def endpoint() -> None:
        first = two.first.db.current

        def body(session: Session) -> None:
            assert two.first.db.current is first
            assert getattr(two.second.db.current, "sync_session", session) is session
            add_item(session)

        await two.second.work(body)
        raise HTTPException(409)

    assert (await two.request(endpoint)).status == 409
    assert two.seen() == ([], ["one"])


# What is refused


DB = AsyncDatabase("sqlite+aiosqlite://")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "db is empty"),
        ((), "db is empty"),
        (None, "db is None; give a Database"),
        ([DB, 2], "db is 2; give a Database"),
        ([DB, DB], "db has database 'default' twice; give it once"),
        ([DB, Database("sqlite://")], "two databases are named 'default'"),
    ],
)
def test_a_middleware_refuses(wrong: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DBSessionMiddleware(FastAPI(), wrong)


def test_an_attribute_that_is_another_databases_name_is_refused() -> None:
    other = AsyncDatabase("sqlite+aiosqlite://", name="other")

    with pytest.raises(UsageError, match="'other'"):
        DBSessionMiddleware(FastAPI(), [DB, other], state_attribute="other")
