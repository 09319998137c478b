"""What outlives its test reaches no database, neither a real one nor a later test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import Flavour, Observer, only
from support.models import Item, add_item, create_tables
from support.sandboxes import entered
from unitwork import DBSessionMiddleware
from unitwork._real_databases.pools import close_pools
from unitwork.testing import SandboxError, sandbox

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite", "psycopg", "asyncpg")]

REAL = {"real": True, "schema": (create_tables, "tables of the tests")}
MODES = pytest.mark.parametrize("options", [REAL, {}], ids=["real", "sandbox"])


@pytest.fixture(autouse=True)
def _pools_are_closed() -> Iterator[None]:
    yield
    close_pools()


async def outliving(flavour: Flavour, options: Any, work: Any) -> None:
    """Begin *work*, which gets an event, inside of a sandbox; the event is its end."""
    over = asyncio.Event()
    async with entered("with", flavour.db, **options):
        task = asyncio.create_task(work(over))
        await asyncio.sleep(0)
    over.set()
    await task


async def test_a_task_can_not_use_the_engine(
    flavour: Flavour, observer: Observer
) -> None:
    engine = flavour.db.engine

    async def work(over: asyncio.Event) -> None:
        await over.wait()
        if flavour.is_async:
            async with engine.begin() as connection:
                await connection.execute(insert(Item).values(name="late"))
        else:
            with engine.begin() as connection:
                connection.execute(insert(Item).values(name="late"))

    with pytest.raises(SandboxError, match="its test is over"):
        await outliving(flavour, REAL, work)
    assert observer.names() == []


@MODES
async def test_a_unit_can_not_begin(
    flavour: Flavour, observer: Observer, options: Any
) -> None:
    async def work(over: asyncio.Event) -> None:
        async with flavour.block() as session:
            await over.wait()
            await flavour.do(session, add_item)

    with pytest.raises(SandboxError, match="test is over"):
        await outliving(flavour, options, work)
    assert observer.names() == []


@MODES
async def test_the_own_session_of_the_test_can_not_be_used(
    flavour: Flavour, observer: Observer, options: Any
) -> None:
    async with entered("with", flavour.db, **options) as box:
        session = box.session

    def write(session: Session) -> None:
        add_item(session)
        session.commit()

    with pytest.raises((SandboxError, StatementError), match="test is over"):
        await flavour.do(session, write)
    assert observer.names() == []


async def test_a_task_of_a_request_does_not_reach_the_next_test(
    flavour: Flavour, observer: Observer
) -> None:
    started: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def late() -> None:
        await over.wait()
        await flavour.work(add_item)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.append(asyncio.create_task(late()))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    served = DBSessionMiddleware(app, db=flavour.db)
    with sandbox(flavour.db) as box, box.shared():
        await asyncio.create_task(call(served, "GET", "/"), context=Context())
    with sandbox(flavour.db) as box, box.shared():
        over.set()
        with pytest.raises(SandboxError, match="its test is over"):
            await started[0]
