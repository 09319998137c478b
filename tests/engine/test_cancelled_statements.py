"""A statement that is cancelled ends, whatever its driver does at that moment."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from support.asgi import call
from support.cancelling import KINDS, Kind
from support.flavours import SERVERS, Flavour, Observer, only
from support.models import Item, names
from support.pool import eventually, impatient
from support.proxy import Proxy
from support.releasing import checked_out
from unitwork import DBSessionMiddleware
from unitwork._engine.aiosqlite_close import prepare_close

pytestmark = pytest.mark.anyio

ENDLESS = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n LIMIT 1"
)


@pytest.fixture
def before() -> set[threading.Thread]:
    """The threads that earlier tests have left."""
    return set(threading.enumerate())


async def check_no_thread_is_left(
    flavour: Flavour, before: set[threading.Thread]
) -> None:
    await flavour.dispose()
    await eventually(
        lambda: (
            not any(
                "_connection" in thread.name
                for thread in threading.enumerate()
                if thread not in before
            )
        )
    )


@only("aiosqlite")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_statement_that_sqlite_begins_after_its_cancellation_is_interrupted(
    before: set[threading.Thread], flavour: Flavour, observer: Observer, kind: Kind
) -> None:
    thread_is_free = threading.Event()

    def execute(session: Session) -> None:
        session.add(Item(name="one"))
        session.flush()
        driver: Any = session.connection().connection.driver_connection
        tasks.append(asyncio.ensure_future(driver._execute(thread_is_free.wait)))
        session.execute(ENDLESS)

    tasks: list[Any] = []
    work, cancel = kind(flavour.work(execute))
    request = asyncio.ensure_future(work)
    await eventually(lambda: tasks)
    cancel()
    await checkpoint()
    thread_is_free.set()
    await asyncio.wait_for(asyncio.wait((request, *tasks)), 5)
    await check_no_thread_is_left(flavour, before)

    assert observer.names() == []


@only("aiosqlite")
@pytest.mark.parametrize("kind", KINDS)
async def test_what_sqlite_cannot_interrupt_is_left_behind_and_then_closed(
    before: set[threading.Thread], flavour: Flavour, observer: Observer, kind: Kind
) -> None:
    reached, goes_on = threading.Event(), threading.Event()

    def wait() -> None:
        reached.set()
        goes_on.wait()

    def execute(session: Session) -> None:
        session.add(Item(name="one"))
        session.flush()
        session.execute(text("SELECT wait()"))

    async with impatient(flavour) as hasty:
        event.listen(
            hasty.sync_engine,
            "connect",
            lambda d, _: d.create_function("wait", 0, wait),
        )
        work, cancel = kind(hasty.work(execute))
        request = asyncio.ensure_future(work)
        await eventually(reached.is_set)
        cancel()
        await asyncio.wait_for(asyncio.wait((request,)), 5)
        assert checked_out(hasty) == 0
        goes_on.set()
        await check_no_thread_is_left(hasty, before)

    assert observer.names() == []


@asynccontextmanager
async def silent_server(
    flavour: Flavour, **options: Any
) -> AsyncIterator[tuple[Flavour, list[str]]]:
    """A connected database whose server has stopped to answer; the new connections."""
    connects: list[str] = []
    async with (
        Proxy(flavour.url) as proxy,
        impatient(flavour, url=proxy.url, **options) as hasty,
    ):
        await hasty.work(names)
        event.listen(hasty.sync_engine, "do_connect", lambda *_: connects.append(""))
        proxy.swallow()
        yield hasty, connects
        proxy.forward()


@only(*SERVERS)
@pytest.mark.parametrize("release", ["transaction", "statement"])
async def test_a_cancelled_request_does_not_wait_for_a_server_that_is_silent(
    flavour: Flavour, release: str
) -> None:
    level = {"isolation_level": "READ COMMITTED"}
    async with silent_server(flavour, release=release, **level) as (hasty, connects):
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=hasty.db)
        app.get("/")(hasty.endpoint(lambda session: names(session) and None))
        request = asyncio.create_task(call(app, "GET", "/"))
        await eventually(lambda: checked_out(hasty) == 1)
        request.cancel()
        await asyncio.wait_for(asyncio.wait((request,)), 4)
        await eventually(lambda: checked_out(hasty) == 0)

        assert connects == []


async def test_a_connection_of_aiosqlite_that_is_to_be_closed_writes_nothing(
    tmp_path: Path,
) -> None:
    connection = await aiosqlite.connect(tmp_path / "test.db", isolation_level=None)
    await connection.execute("CREATE TABLE item (name TEXT)")

    prepare_close(connection, None)

    with pytest.raises(sqlite3.OperationalError, match="readonly database"):
        await connection.execute("INSERT INTO item VALUES ('late')")
    await connection.close()
