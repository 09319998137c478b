"""Release mode "statement" in requests, WebSockets, streams and sandboxes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import select, text
from sqlalchemy.orm import Session, selectinload

from support.asgi import Reply, call
from support.conflicts import Conflict, write_from_outside
from support.flavours import FEW, MARIADB, POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item, names
from support.pool import eventually
from support.releasing import checked_out, outside, releasing
from support.several import Two
from support.websocket import Socket
from unitwork import DBSessionMiddleware, Outcome, current_unit, transactional
from unitwork.testing import assert_committed, no_waits, sandbox

pytestmark = pytest.mark.anyio

EVERY = only("sqlite3", "aiosqlite", *POSTGRESQL)
ASYNC = only("aiosqlite", "asyncpg", "psycopg-async")
CROWD = 40


def application(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)
    return app


async def request(flavour: Flavour, endpoint: Any) -> Reply:
    app = application(flavour)
    app.post("/")(endpoint)
    return await call(app, "POST", "/")


@EVERY
async def test_an_endpoint_holds_nothing_between_its_statements(
    released: Flavour, observer: Observer
) -> None:
    held = []

    def body(session: Session) -> None:
        names(session)
        held.append(checked_out(released))
        add_item(session)
        held.append(checked_out(released))

    assert (await request(released, released.endpoint(body))).status == 200
    assert held == [0, 1]
    assert observer.names() == ["one"]


@only(*POSTGRESQL, *MARIADB)
async def test_a_small_pool_serves_a_crowd_that_waits(
    flavour: Flavour, observer: Observer
) -> None:
    narrow = releasing(flavour, pool_size=2, pool_timeout=20)
    all_inside = asyncio.Barrier(CROWD)

    async def endpoint(number: int) -> None:
        await narrow.do(await narrow.db.session(), names)
        await all_inside.wait()  # each needs all others to have come this far
        await narrow.do(narrow.db.current, lambda s: add_item(s, f"{number}") and None)

    app = application(narrow)
    app.post("/{number}")(endpoint)
    calls = (call(app, "POST", f"/{number}") for number in range(CROWD))
    replies = await asyncio.gather(*calls)
    await narrow.dispose()

    assert {reply.status for reply in replies} == {200}
    assert len(observer.names()) == CROWD


@only("asyncpg", "psycopg-async")
async def test_a_migration_does_not_wait_for_a_request_that_waits(
    released: Flavour,
) -> None:
    waiting, altered = asyncio.Event(), asyncio.Event()

    async def endpoint() -> None:
        await released.do(released.db.current, names)
        waiting.set()
        await altered.wait()

    task = asyncio.create_task(request(released, endpoint))
    await waiting.wait()
    alter = "ALTER TABLE item ALTER COLUMN name SET NOT NULL"
    write_from_outside(released.url, f"SET LOCAL lock_timeout = '1s'; {alter}")
    altered.set()

    assert (await task).status == 200


@ASYNC
async def test_a_stream_that_polls_holds_nothing_in_between(released: Flavour) -> None:
    held = []

    async def poll() -> AsyncIterator[str]:
        for _ in range(3):
            found = await released.do(released.db.current, names)
            held.append(checked_out(released))
            yield f"data: {found}\n\n"

    async def endpoint() -> StreamingResponse:
        await released.do(released.db.current, names)
        return StreamingResponse(poll())

    reply = await request(released, endpoint)

    assert reply.body == b"data: []\n\n" * 3
    assert held == [0, 0, 0]


@ASYNC
async def test_what_a_stream_writes_is_stored(
    released: Flavour, observer: Observer
) -> None:
    async def write() -> AsyncIterator[str]:
        await released.do(released.db.current, names)
        yield "one"
        await released.do(released.db.current, lambda s: add_item(s) and None)
        yield "two"

    async def endpoint() -> StreamingResponse:
        return StreamingResponse(write())

    assert (await request(released, endpoint)).complete
    assert observer.names() == ["one"]


@ASYNC
async def test_websockets_have_it_for_each_message(
    released: Flavour, observer: Observer
) -> None:
    app = application(released)

    @app.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            name = await websocket.receive_text()
            await released.do(released.db.current, names)
            await websocket.send_json(checked_out(released))
            await released.do(released.db.current, lambda s, n=name: add_item(s, n))

    async with Socket(app, "/") as socket:
        assert await socket.ask("one") == "0"
        assert await socket.ask("two") == "0"
        assert observer.names() == ["one"]


@FEW
async def test_a_retry_runs_the_whole_request_again(
    released: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        done.append(",".join(names(session)))
        add_item(session)
        if len(done) == 1:
            raise Conflict

    with no_waits():
        endpoint = transactional(attempts=2)(released.endpoint(body))
        assert (await request(released, endpoint)).status == 200
    assert done == ["", ""]
    assert observer.names() == ["one"]


@ASYNC
async def test_the_deadline_ends_a_unit_that_holds_nothing(
    released: Flavour, observer: Observer
) -> None:
    @transactional(deadline=0.1)
    async def endpoint() -> None:
        await released.do(released.db.current, names)
        await asyncio.Event().wait()

    reply = await asyncio.wait_for(request(released, endpoint), 30)

    assert type(reply.error).__name__ == "DeadlineExceededError"


@EVERY
async def test_outside_has_nothing_to_release(released: Flavour) -> None:
    async with released.block() as session:
        await released.do(session, names)
        async with outside():
            assert checked_out(released) == 0
        await released.do(session, lambda s: add_item(s) and None)


@only("asyncpg", "psycopg-async", "psycopg", "aiosqlite")
async def test_eager_loads_are_executed_without_a_transaction(
    flavour: Flavour, released: Flavour
) -> None:
    def load(session: Session) -> int:
        query = select(Item).options(selectinload("*"))
        assert [each.name for each in session.scalars(query)] == ["one"]
        return checked_out(released)

    await flavour.work(add_item)

    assert await released.work(load) == 0


@FEW
async def test_a_unit_inside_another_one_has_its_own_mode(
    flavour: Flavour, released: Flavour
) -> None:
    async with released.block() as outer:
        await released.do(outer, lambda s: names(s))
        async with released.block(nested="own", release="transaction") as inner:
            await released.do(inner, names)
            assert checked_out(released) == 1
        await released.do(outer, names)
        assert checked_out(released) == 0


@FEW
async def test_of_two_databases_each_has_its_own_mode(two: Two) -> None:
    first = releasing(two.first)
    async with first.block() as session, two.second.block() as other:
        await first.do(session, names)
        await two.second.do(other, names)
        assert (checked_out(first), checked_out(two.second)) == (0, 1)
    await first.dispose()


@EVERY
async def test_a_sandbox_shows_the_same(released: Flavour, observer: Observer) -> None:
    async with sandbox(released.db):
        async with released.block() as session:
            unit = current_unit()
            await released.do(session, names)
        assert unit.outcome is Outcome.EMPTY
        with assert_committed(released.db):
            await released.work(read_and_add)
        assert await released.work(names) == ["one"]

    assert observer.names() == []


@EVERY
async def test_units_of_a_sandbox_do_not_wait_for_one_that_has_read(
    released: Flavour,
) -> None:
    async with sandbox(released.db, timeout=1), released.block() as session:
        await released.do(session, names)
        await asyncio.create_task(_beside(released))
        assert await released.do(session, names) == ["one"]


def read_and_add(session: Session) -> None:
    names(session)
    add_item(session)


async def _beside(released: Flavour) -> None:
    await released.work(lambda s: add_item(s) and None, nested="own")


@ASYNC
async def test_a_cancelled_read_leaves_nothing(released: Flavour) -> None:
    if released.is_sqlite:
        slow = text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT count(*) FROM n LIMIT 1"
        )
    else:
        slow = text("SELECT pg_sleep(30)")
    slow = slow.execution_options(unitwork_only_reads=True)
    task = asyncio.create_task(released.work(lambda s: s.execute(slow)))
    await eventually(lambda: checked_out(released) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await released.work(names) == []
