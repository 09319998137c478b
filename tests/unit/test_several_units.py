"""Several units in one request: side by side, and one inside the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from support.asgi import Reply, call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import Item, add_item, names
from support.several import Two, fail
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio

with_room = only("psycopg", "psycopg-async", "asyncpg")
"""Where one unit may write while another does."""

ROWS = select(Item.name).order_by(Item.id).execution_options(yield_per=1)


# Side by side in one request


@only(*ASYNC)
async def test_units_may_run_side_by_side(flavour: Flavour, observer: Observer) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    sessions: set[object] = set()

    async def work(number: int) -> None:
        async with flavour.db.transaction() as session:
            sessions.add(session)
            assert flavour.db.current is session
            await session.run_sync(add_item, str(number))
            assert flavour.db.current is session

    @app.post("/")
    async def endpoint() -> None:
        await asyncio.gather(*(work(number) for number in range(4)))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, len(sessions)) == (200, None, 4)
    assert sorted(observer.names()) == ["0", "1", "2", "3"]


@only("psycopg-async", "asyncpg")
async def test_units_side_by_side_are_judged_one_by_one(
    flavour: Flavour, observer: Observer
) -> None:
    both_inside = asyncio.Barrier(3)

    async def work(name: str, body: Callable[[Session], Any]) -> None:
        async with flavour.db.transaction() as session:
            await session.run_sync(add_item, name)
            await both_inside.wait()
            await session.run_sync(body)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> list[str]:
        one, two = work("good", names), work("bad", fail)
        await flavour.db.current.run_sync(add_item, "of the request")
        results = asyncio.gather(one, two, return_exceptions=True)
        await both_inside.wait()
        return [type(result).__name__ for result in await results]

    reply = await call(app, "POST", "/")

    assert reply.json == ["NoneType", "LookupError"]
    assert sorted(observer.names()) == ["good", "of the request"]


# One inside the other


async def in_request(
    flavour: Flavour, inner: Callable[[Session], Any], *, status: int = 200, **how: Any
) -> Reply:
    """Add "outer", run *inner* in a block, go on, answer with *status*."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/", status_code=status)
    async def endpoint() -> None:
        session = await flavour.db.session()
        await flavour.do(session, partial(add_item, name="outer"))
        with suppress(LookupError):
            await flavour.work(inner, **how)
        await flavour.do(session, partial(add_item, name="later"))

    return await call(app, "POST", "/")


def add_inner(session: Session) -> None:
    add_item(session, "inner")


def fail_inner(session: Session) -> None:
    add_item(session, "inner")
    raise LookupError


@pytest.mark.parametrize(
    ("nested", "inner", "status", "stored"),
    [
        ("join", add_inner, 200, ["outer", "inner", "later"]),
        ("join", add_inner, 409, []),
        ("join", fail_inner, 409, []),
        ("savepoint", add_inner, 200, ["outer", "inner", "later"]),
        ("savepoint", add_inner, 409, []),
        ("savepoint", fail_inner, 200, ["outer", "later"]),
        ("savepoint", fail_inner, 409, []),
    ],
)
async def test_a_block_in_the_same_session_shares_the_fate_of_the_request(
    flavour: Flavour,
    observer: Observer,
    nested: str,
    inner: Callable[[Session], Any],
    status: int,
    stored: list[str],
) -> None:
    reply = await in_request(flavour, inner, status=status, nested=nested)

    assert (reply.status, reply.error) == (status, None)
    assert observer.names() == stored


@with_room
@pytest.mark.parametrize(
    ("inner", "status", "stored"),
    [
        (add_inner, 200, {"outer", "inner", "later"}),
        (add_inner, 409, {"inner"}),
        (fail_inner, 200, {"outer", "later"}),
        (fail_inner, 409, set()),
    ],
)
async def test_a_block_of_its_own_has_its_own_fate(
    flavour: Flavour,
    observer: Observer,
    inner: Callable[[Session], Any],
    status: int,
    stored: set[str],
) -> None:
    reply = await in_request(flavour, inner, status=status)

    assert (reply.status, reply.error) == (status, None)
    assert set(observer.names()) == stored


async def test_a_joined_block_that_failed_costs_the_request_its_success(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await in_request(flavour, fail_inner, nested="join")

    assert type(reply.error) is UnexpectedRollbackError
    assert type(reply.error.__cause__) is LookupError
    assert observer.names() == []


@with_room
async def test_hooks_go_with_the_block_that_registered_them(
    flavour: Flavour, observer: Observer
) -> None:
    done: list[str] = []

    def hooked(name: str, session: Session) -> None:
        add_item(session, name)
        current_unit().on_commit(lambda: done.append(f"{name}: {observer.names()}"))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, partial(hooked, "outer"))
        await flavour.work(partial(hooked, "own"))
        await flavour.work(partial(hooked, "joined"), nested="join")
        await flavour.work(partial(hooked, "saved"), nested="savepoint")
        done.append("the end")

    assert (await call(app, "POST", "/")).status == 200
    everything = ["outer", "own", "joined", "saved"]
    assert done == [
        "own: ['own']",
        "the end",
        *(f"{name}: {everything}" for name in ("outer", "joined", "saved")),
    ]


@with_room
async def test_three_blocks_deep_each_finds_its_own(flavour: Flavour) -> None:
    outcomes: dict[str, UnitOfWork] = {}

    async with flavour.block() as outer:
        outcomes["outer"] = current_unit()
        async with flavour.block() as middle:
            outcomes["middle"] = current_unit()
            async with flavour.block(nested="join") as inner:
                assert current_unit() is outcomes["middle"]
                assert inner is middle is not outer
            assert outcomes["middle"].outcome is None
        assert outcomes["middle"].outcome is Outcome.EMPTY
        assert flavour.db.current is outer


# While one of them is being streamed


@pytest.mark.filterwarnings("ignore:.*ServerCursor:ResourceWarning")
@only("psycopg", "asyncpg")
async def test_hooks_hear_of_the_commit_although_the_stream_fails_later(
    two: Two,
) -> None:
    heard: list[str] = []
    for name in ("one", "two"):
        await two.first.work(partial(add_item, name=name))

    async def body(rows: object) -> AsyncIterator[str]:
        yield "1"
        raise LookupError

    async def endpoint() -> StreamingResponse:
        current_unit().on_commit(heard.append, "committed")
        current_unit().on_rollback(heard.append, "rolled back")
        await two.second.do(await two.second.db.session(), add_item)
        session: Any = await two.first.db.session()
        rows = await two.first.do(session, lambda s: s.execute(ROWS))
        return StreamingResponse(body(rows))

    reply = await two.request(endpoint)

    assert (reply.body, type(reply.error)) == (b"1", LookupError)
    assert (heard, two.seen()[1]) == (["committed"], ["one"])
