"""The unit of work in users' hands: where it is found."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import Message, call
from support.flavours import ASYNC, Flavour, only
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    MissingSessionError,
    UnitOfWork,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio


def test_outside_of_everything_there_is_none() -> None:
    with pytest.raises(MissingSessionError, match=r"DBSessionMiddleware.*transaction"):
        current_unit()


async def test_a_block_is_a_unit_and_so_is_a_block_inside_it(db: AsyncDatabase) -> None:
    async with db.transaction() as session:
        outer = current_unit()
        assert db.current is session
        async with db.transaction() as inner:
            assert current_unit() is not outer
            assert db.current is inner is not session
        assert current_unit() is outer
        assert db.current is session
    with pytest.raises(MissingSessionError):
        current_unit()


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_that_joins_is_the_unit_around(
    db: AsyncDatabase, nested: Any
) -> None:
    async with db.transaction() as session:
        outer = current_unit()
        async with db.transaction(nested=nested) as joined:
            assert (current_unit(), joined) == (outer, session)


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_that_has_nothing_to_join_is_a_unit_of_its_own(
    db: AsyncDatabase, nested: Any
) -> None:
    async with db.transaction(nested=nested):
        unit = current_unit()

    assert unit.outcome is not None


async def test_a_block_is_left_behind_when_it_raises(db: AsyncDatabase) -> None:
    with pytest.raises(LookupError):
        async with db.transaction():
            raise LookupError

    with pytest.raises(MissingSessionError):
        current_unit()


async def test_tasks_and_threads_below_find_the_unit(db: AsyncDatabase) -> None:
    async with db.transaction():
        unit = current_unit()

        async def in_task() -> UnitOfWork:
            return current_unit()

        assert await asyncio.create_task(in_task()) is unit
        assert await to_thread.run_sync(current_unit) is unit


async def test_other_tasks_do_not(db: AsyncDatabase) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def block() -> None:
        async with db.transaction():
            begun.set()
            await done.wait()

    task = asyncio.create_task(block())
    await begun.wait()
    with pytest.raises(MissingSessionError):
        current_unit()
    done.set()
    await task


async def test_of_a_request_is_found_in_four_ways(flavour: Flavour) -> None:
    found: list[Any] = []

    async def endpoint(scope: Message, receive: Any, send: Any) -> None:
        request = Request(scope)
        found.append(request.state.db)
        found.append(await flavour.db.session(request))
        found.append(await flavour.db.session(scope))
        found.append(await flavour.db.session())
        found.append(flavour.db.current)
        await Response()(scope, receive, send)

    await call(DBSessionMiddleware(endpoint, flavour.db), "GET", "/")

    assert len(found) == 5
    assert len(set(found)) == 1


async def test_of_a_request_is_found_behind_a_block_that_lies_between(
    flavour: Flavour,
) -> None:
    async def endpoint(scope: Message, receive: Any, send: Any) -> None:
        ours = await flavour.db.session()

        def inside(session: Session) -> None:
            assert getattr(flavour.db.current, "sync_session", session) is session

        await flavour.work(inside)
        async with AsyncDatabase("sqlite+aiosqlite://").transaction():
            assert await flavour.db.session() is flavour.db.current is ours
        await Response()(scope, receive, send)

    reply = await call(DBSessionMiddleware(endpoint, flavour.db), "GET", "/")

    assert reply.error is None


@only(*ASYNC)
async def test_a_block_takes_over_what_is_current_but_not_the_requests_session(
    flavour: Flavour,
) -> None:
    async def endpoint(scope: Message, receive: Any, send: Any) -> None:
        ours = flavour.db.current
        async with flavour.db.transaction() as session:
            assert flavour.db.current is session is not ours
            assert await flavour.db.session() is ours
            assert await flavour.db.session(scope) is ours
        assert flavour.db.current is ours
        await Response()(scope, receive, send)

    reply = await call(DBSessionMiddleware(endpoint, flavour.db), "GET", "/")

    assert reply.error is None


async def test_a_database_that_the_unit_does_not_cover_is_named(
    db: AsyncDatabase,
) -> None:
    other = AsyncDatabase("sqlite+aiosqlite://", name="reports")
    async with db.transaction():
        with pytest.raises(MissingSessionError, match="for database 'reports' here"):
            _ = other.current
        with pytest.raises(MissingSessionError, match="'reports'"):
            await other.session()


@pytest.mark.parametrize("wrong", [42, "request", object()])
async def test_a_session_is_given_for_a_request_only(
    db: AsyncDatabase, wrong: Any
) -> None:
    async with db.transaction():
        with pytest.raises(UsageError, match="give the request"):
            await db.session(wrong)
