"""SQLite: who takes the write lock and when, and transactions that deserve the name."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import Item, add_item, names
from support.pages import statements
from support.sqlite import METHODS, add_quietly, serve, serve_inside
from unitwork import DBSessionMiddleware, UsageError, current_unit

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

ASKING = ("PRAGMA", "VACUUM INTO NULL")
"""What asks for the state of a connection."""


# Which BEGIN


async def test_the_file_hears_begin_and_commit_once_each(flavour: Flavour) -> None:
    heard: list[str] = []

    def listen(dbapi_connection: Any, record: object) -> None:
        run = getattr(dbapi_connection, "run_async", lambda do: do(dbapi_connection))
        run(lambda connection: connection.set_trace_callback(heard.append))

    event.listen(flavour.sync_engine, "connect", listen)
    await flavour.work(add_item)

    heard = [sql.split()[0] for sql in heard if not sql.startswith(ASKING)]
    assert heard == ["BEGIN", "INSERT", "COMMIT"]


@pytest.mark.parametrize("method", METHODS)
async def test_requests_that_may_write_take_the_lock_at_once(
    flavour: Flavour, method: str
) -> None:
    app = serve(flavour, lambda session: names(session))

    with statements(flavour.db.engine) as sent:
        reply = await call(app, method, "/")

    assert reply.status == 200
    reads = method in ("GET", "HEAD", "OPTIONS", "TRACE")
    assert sent[0] == ("BEGIN" if reads else "BEGIN IMMEDIATE")
    assert sent[-1] == "COMMIT"


async def test_a_block_takes_the_lock_at_once(flavour: Flavour) -> None:
    with statements(flavour.db.engine) as sent:
        await flavour.work(names)

    assert (sent[0], sent[-1]) == ("BEGIN IMMEDIATE", "COMMIT")


async def test_a_get_that_writes_works(flavour: Flavour, observer: Observer) -> None:
    app = serve(flavour, lambda session: add_item(session).id)

    reply = await call(app, "GET", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


async def test_eight_that_read_and_then_write_all_succeed(
    flavour: Flavour, observer: Observer
) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    app = serve(flavour, count)
    replies = await asyncio.gather(*(call(app, "POST", "/") for _ in range(8)))

    assert [(reply.status, reply.error) for reply in replies] == [(200, None)] * 8
    assert observer.names() == [f"item {n}" for n in range(8)]


async def test_eight_blocks_that_read_and_then_write_all_succeed(
    flavour: Flavour, observer: Observer
) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    await asyncio.gather(*(flavour.work(count) for _ in range(8)))

    assert observer.names() == [f"item {n}" for n in range(8)]


async def test_readers_do_not_wait_for_a_writer(flavour: Flavour) -> None:
    app = serve(flavour, names)
    written, read = asyncio.Event(), asyncio.Event()
    writing = FastAPI()
    writing.add_middleware(DBSessionMiddleware, db=flavour.db)

    @writing.post("/")
    async def write() -> None:
        await flavour.do(flavour.db.current, lambda session: add_item(session).id)
        written.set()
        await read.wait()

    writer = asyncio.create_task(call(writing, "POST", "/"))
    await written.wait()
    reply = await call(app, "GET", "/")
    read.set()

    assert (reply.json, (await writer).status) == ([], 200)


# Transactions that deserve the name


async def test_a_released_savepoint_is_lost_with_its_transaction(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            add_item(session)
        raise LookupError

    with pytest.raises(LookupError):
        await flavour.work(body)

    assert observer.names() == []


async def test_a_savepoint_that_is_rolled_back_leaves_the_rest(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session, "before")
        with suppress(LookupError), session.begin_nested():
            add_item(session, "dropped")
            raise LookupError
        add_item(session, "after")

    await flavour.work(body)

    assert observer.names() == ["before", "after"]


async def test_reads_are_repeatable(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def read_twice(request: Request) -> list[list[str]]:
        session = await flavour.db.session(request)
        before = await flavour.do(session, names)
        await asyncio.create_task(flavour.work(add_item))
        return [before, await flavour.do(session, names)]

    assert (await call(app, "GET", "/")).json == [[], []]
    assert await flavour.work(names) == ["one"]


async def test_the_schema_can_be_rolled_back(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        session.execute(text("CREATE TABLE dropped (id INTEGER)"))
        current_unit().rollback_only()

    await flavour.work(body)

    with pytest.raises(OperationalError, match="no such table"):
        await flavour.work(lambda s: s.execute(text("SELECT * FROM dropped")))


# A unit inside another


async def test_a_block_that_would_wait_for_the_unit_around_it_is_refused_at_once(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await serve_inside(flavour, "POST", add_quietly)

    assert isinstance(reply.error, UsageError)
    assert 'nested="join"' in str(reply.error)
    assert 'nested="savepoint"' in str(reply.error)
    assert observer.names() == []


async def test_a_block_is_refused_inside_one_that_only_reads_but_has_the_lock(
    flavour: Flavour,
) -> None:
    reply = await serve_inside(flavour, "POST", names)

    assert isinstance(reply.error, UsageError)


async def test_a_block_is_refused_inside_a_get_that_has_written(
    flavour: Flavour,
) -> None:
    reply = await serve_inside(flavour, "GET", add_quietly)

    assert isinstance(reply.error, UsageError)


async def test_a_block_is_free_to_write_inside_a_get_that_reads(
    flavour: Flavour, observer: Observer
) -> None:
    reply = await serve_inside(flavour, "GET", names)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["inner"]


async def test_a_block_is_free_to_write_while_the_unit_around_it_has_sent_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def unflushed(session: Session) -> None:
        session.add(Item(name="outer"))

    reply = await serve_inside(flavour, "POST", unflushed)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["inner", "outer"]


@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_that_joins_need_not_wait(
    flavour: Flavour, observer: Observer, nested: str
) -> None:
    reply = await serve_inside(flavour, "POST", add_quietly, nested=nested)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["outer", "inner"]
