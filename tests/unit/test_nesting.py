"""Nested transactions: the second connection that a block of its own needs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import exc, text
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.databases import check_nothing_is_left
from support.flavours import SERVERS, SYNC, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from unitwork import (
    DBSessionMiddleware,
    PoolTimeoutError,
    UsageError,
    current_unit,
)
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

READ_ONLY = {"read_only": True}
"""SQLite admits one unit that writes, and any number of these."""
IN_VAIN = (PoolTimeoutError, exc.TimeoutError)
SECOND = r"a second connection of database 'default'.*all 2 of the pool.*pool_size"


@pytest.fixture
async def two(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with two connections, and no patience."""
    async with pool_of(flavour, 2) as two:
        yield two


@asynccontextmanager
async def pool_of(
    flavour: Flavour, size: int, *, patience: float = 0.1
) -> AsyncIterator[Flavour]:
    another = flavour.another(pool_size=size, max_overflow=0, pool_timeout=patience)
    yield another
    await check_nothing_is_left(another)
    await another.dispose()


def connect(session: Session) -> None:
    session.execute(text("SELECT 1"))


def add_unflushed(session: Session) -> None:
    session.add(Item(name=f"in {id(session)}"))


def serve(
    flavour: Flavour, inner: Callable[[Session], Any], *, handlers: Any = None
) -> FastAPI:
    """Two requests at / each hold a connection, and wait for another for *inner*."""
    app = FastAPI(exception_handlers=handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)
    barrier = asyncio.Barrier(2)

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, connect)
        await barrier.wait()
        try:
            await flavour.work(inner, nested="own")
        finally:
            await barrier.wait()  # hold on to the connection till both know

    return app


async def post_two(app: FastAPI) -> list[Reply]:
    return await asyncio.gather(*(call(app, "POST", "/") for _ in range(2)))


def root(error: BaseException | None) -> BaseException | None:
    """What SQLAlchemy or the gate had raised; fails if more than one of us spoke."""
    assert isinstance(error, PoolTimeoutError)
    assert "second connection" in str(error)
    assert "second connection" not in str(error.__cause__)
    return error.__cause__


# The pool is said to be the cause


@only(*SERVERS)
@pytest.mark.parametrize("inner", [connect, add_unflushed])
async def test_two_requests_that_each_need_a_second_connection_are_told_why(
    two: Flavour, inner: Callable[[Session], Any], observer: Observer
) -> None:
    replies = await post_two(serve(two, inner))

    for reply in replies:
        with pytest.raises(PoolTimeoutError, match=SECOND):
            raise reply.error or AssertionError
        assert isinstance(root(reply.error), IN_VAIN)
    assert observer.names() == []


@only(*SERVERS)
async def test_the_message_names_the_ways_out(two: Flavour) -> None:
    reply, _ = await post_two(serve(two, connect))

    message = str(reply.error)
    for way in ('nested="join"', 'nested="savepoint"', "pool larger"):
        assert way in message


@only(*SERVERS)
async def test_clients_are_asked_to_come_back(two: Flavour) -> None:
    replies = await post_two(serve(two, connect, handlers=exception_handlers))

    for reply in replies:
        assert reply.status == 503
        assert (b"retry-after", b"1") in reply.starts[0]["headers"]


@only(*SERVERS)
async def test_a_pool_with_one_more_than_units_at_once_is_enough(
    flavour: Flavour,
) -> None:
    async with pool_of(flavour, 3, patience=5) as three:
        app = serve(three, connect)
        replies = await post_two(app)

    assert [reply.status for reply in replies] == [200, 200]


@everywhere
async def test_blocks_in_blocks_are_told_as_well(two: Flavour) -> None:
    barrier = asyncio.Barrier(2)

    async def unit() -> BaseException | None:
        async with two.block(**READ_ONLY) as session:
            await two.do(session, connect)
            await barrier.wait()
            with pytest.raises(PoolTimeoutError, match=SECOND) as caught:
                await two.work(connect, nested="own", **READ_ONLY)
            await barrier.wait()
            return root(caught.value)

    for cause in await asyncio.gather(unit(), unit()):
        assert isinstance(cause, IN_VAIN)


@only(*SYNC, "pymysql")
async def test_threads_that_are_not_the_frameworks_are_told_as_well(
    two: Flavour,
) -> None:
    """They wait in the pool itself: the gate has no event loop for them."""
    barrier = threading.Barrier(2, timeout=10)

    def unit() -> BaseException | None:
        with two.db.transaction(**READ_ONLY) as session:
            connect(session)
            barrier.wait()
            with (
                pytest.raises(PoolTimeoutError, match=SECOND) as caught,
                two.db.transaction(**READ_ONLY) as another,
            ):
                connect(another)
            barrier.wait()
            return root(caught.value)

    with ThreadPoolExecutor(2) as executor:
        units = [executor.submit(unit) for _ in range(2)]
        for made in units:
            cause = await asyncio.wrap_future(made)
            assert isinstance(cause, exc.TimeoutError)


@only(*SYNC, "pymysql")
async def test_on_the_event_loop_it_is_told_at_once(flavour: Flavour) -> None:
    async with (
        pool_of(flavour, 2, patience=60) as patient,
        patient.block(**READ_ONLY) as session,
        patient.block(**READ_ONLY) as another,
    ):
        for each in session, another:
            await patient.do(each, connect)
        with (
            pytest.raises(PoolTimeoutError, match=SECOND) as caught,
            pytest.warns(match="on the event loop's own thread"),
            patient.db.transaction(**READ_ONLY) as third,
        ):
            connect(third)

    assert "would block the event loop" in str(root(caught.value))


@everywhere
async def test_however_deep_the_block_that_waits_is_the_one_to_blame(
    two: Flavour,
) -> None:
    async with two.block(**READ_ONLY) as outer, two.block(**READ_ONLY) as inner:
        for session in outer, inner:
            await two.do(session, connect)
        with pytest.raises(PoolTimeoutError, match=SECOND) as caught:
            async with two.block(**READ_ONLY):  # which never asks for one
                await two.work(connect, nested="own", **READ_ONLY)

    assert isinstance(root(caught.value), IN_VAIN)


# Where it is not


@everywhere
async def test_a_block_with_nothing_around_it_is_told_what_the_pool_says(
    two: Flavour,
) -> None:
    begin = asyncio.Event()

    async def wait() -> None:
        await begin.wait()
        await two.work(connect, **READ_ONLY)

    waits = asyncio.create_task(wait())  # before there is a unit around
    async with two.block(**READ_ONLY) as one, two.block(**READ_ONLY) as other:
        for session in one, other:
            await two.do(session, connect)
        begin.set()
        with pytest.raises(IN_VAIN) as caught:
            await waits

    assert "second connection" not in str(caught.value)


@only(*SERVERS)
async def test_a_unit_around_that_holds_none_is_not_to_blame(two: Flavour) -> None:
    begin, held = asyncio.Event(), asyncio.Event()

    async def hold_both() -> None:
        async with two.block() as one, two.block() as other:
            for session in one, other:
                await two.do(session, connect)
            held.set()
            await begin.wait()

    holds = asyncio.create_task(hold_both())
    await held.wait()
    with pytest.raises(IN_VAIN) as caught:
        async with two.block():
            await two.work(connect, nested="own")
    begin.set()
    await holds

    assert "second connection" not in str(caught.value)


@only("psycopg", "asyncpg")
async def test_a_time_out_of_another_database_is_not_taken_for_ones_own(
    two: Flavour,
) -> None:
    theirs = exc.TimeoutError("of another database")

    def inner(session: Session) -> None:
        session.add(Item(name="lost"))
        raise theirs

    async with two.block() as outer:
        await two.do(outer, connect)
        with pytest.raises(exc.TimeoutError) as caught:
            await two.work(inner, nested="own")

    assert caught.value is theirs


# Blocks that are refused


@only("sqlite3", "aiosqlite")
async def test_a_block_that_only_reads_need_not_wait_for_sqlites_one_writer(
    two: Flavour, observer: Observer
) -> None:
    async with two.block() as session:
        await two.do(session, add_item)
        assert await two.work(names, nested="own", **READ_ONLY) == []

    assert observer.names() == ["one"]


async def test_a_block_that_is_refused_is_not_the_unit_from_then_on(
    flavour: Flavour, observer: Observer
) -> None:
    done: list[str] = []

    async with pool_of(flavour, 1) as one, one.block() as session:
        await one.do(session, add_item)
        unit = current_unit()
        with pytest.raises(UsageError, match="admits one unit at a time"):
            await one.block(nested="own").__aenter__()
        assert current_unit() is unit
        assert one.db.current is session
        current_unit().on_commit(done.append, "called")

    assert (done, observer.names()) == (["called"], ["one"])


@only(*SERVERS)
async def test_a_block_that_failed_for_want_of_a_connection_may_be_given_up(
    two: Flavour, observer: Observer
) -> None:
    async with two.block() as outer, two.block(**READ_ONLY) as inner:
        await two.do(inner, connect)
        await two.do(outer, lambda s: add_item(s, "kept"))
        with suppress(PoolTimeoutError):
            await two.work(connect, nested="own", **READ_ONLY)
        assert await two.do(outer, names) == ["kept"]

    assert observer.names() == ["kept"]
