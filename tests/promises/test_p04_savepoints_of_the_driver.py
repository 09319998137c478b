"""P4: a savepoint begun through the driver takes along what others did in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.beside_savepoint import Beside, driver_of
from support.driver import send
from support.flavours import Flavour, Observer, only
from support.models import Item, add_item
from unitwork import UnexpectedRollbackError, current_unit

pytestmark = pytest.mark.anyio

METHODS = [("asyncpg", "driver"), ("psycopg-async", "driver")]
TEXTS = [
    (name, "driver's SQL")
    for name in ("aiosqlite", "asyncmy", "asyncpg", "psycopg-async")
]
with_savepoints = pytest.mark.parametrize(
    ("flavour", "by"), METHODS + TEXTS, indirect=["flavour"]
)
INSERT = "INSERT INTO item (name) VALUES ('beside')"


@pytest.fixture
def beside(flavour: Flavour, observer: Observer, by: str) -> Beside:
    return Beside(flavour, "request", by)


async def is_refused(beside: Beside, body: Callable[[Session], Any]) -> None:
    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.around(body)


@with_savepoints
async def test_a_statement_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: session.execute(text(INSERT)))

    assert observer.names() == []


@with_savepoints
async def test_a_hook_registered_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: current_unit().on_commit(print))

    assert observer.names() == []


@with_savepoints
async def test_a_read_beside_it_loses_nothing(
    beside: Beside, observer: Observer
) -> None:
    await beside.around(lambda session: session.scalars(select(Item)).all())

    assert observer.names() == ["before"]


@with_savepoints
async def test_what_is_done_beside_one_that_ends_well_is_stored(
    beside: Beside, observer: Observer
) -> None:
    beside.error = None
    await beside.around(lambda session: session.execute(text(INSERT)))

    assert observer.names() == ["before", "beside"]


@with_savepoints
async def test_it_undoes_its_own_work(beside: Beside, observer: Observer) -> None:
    beside.work = lambda session: session.execute(text(INSERT))
    await beside.around(lambda session: None)

    assert observer.names() == ["before"]


@with_savepoints
async def test_a_savepoint_of_the_session_inside_it(
    beside: Beside, observer: Observer
) -> None:
    def work(session: Session) -> None:
        with session.begin_nested():
            add_item(session, "inside")

    beside.work = work
    await beside.around(lambda session: None)

    assert observer.names() == ["before"]


@only("aiosqlite", "asyncmy", "asyncpg", "psycopg-async")
async def test_a_call_of_the_driver_beside_one_of_the_session(
    flavour: Flavour, observer: Observer
) -> None:
    beside = Beside(flavour, "request", "begin_nested")

    async def work(session: AsyncSession) -> None:
        driver = await driver_of(session)
        task = asyncio.create_task(beside.savepoint())
        await beside.is_open.wait()
        await session.execute(select(Item))  # which begins it
        await (getattr(driver, "query", None) or driver.execute)(INSERT)
        beside.go_on.set()
        await task

    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.in_unit(work)
    assert observer.names() == []


@only("psycopg", "pymysql")
async def test_a_statement_of_another_thread_beside_it(
    flavour: Flavour, observer: Observer
) -> None:
    is_open, go_on = Event(), Event()

    def fail(session: Session) -> None:
        send(session, "SAVEPOINT x")
        is_open.set()
        go_on.wait()
        send(session, "ROLLBACK TO x")

    async def work() -> None:
        async with flavour.block() as session:
            task = asyncio.create_task(to_thread.run_sync(fail, session))
            await to_thread.run_sync(is_open.wait)
            await to_thread.run_sync(session.execute, text(INSERT))
            go_on.set()
            await task

    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await work()
    assert observer.names() == []


@only("asyncpg", "psycopg-async")
async def test_one_on_a_connection_that_has_replaced_a_dropped_one(
    flavour: Flavour, observer: Observer
) -> None:
    other = flavour.another(release="statement", pool_size=1, max_overflow=0)
    beside = Beside(other, "block", "driver's SQL")

    async def work(session: AsyncSession) -> None:
        await session.scalars(select(Item))
        observer.terminate_all()
        task = asyncio.create_task(beside.savepoint())
        await beside.is_open.wait()
        await session.execute(text(INSERT))
        beside.go_on.set()
        await task

    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.in_unit(work)
    await other.dispose()
    assert observer.names() == []
