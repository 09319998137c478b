"""Sandboxes where connections are lost, shared with replicas, or committed together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from support.flavours import EVERY, POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item
from support.sandboxes import count, entered, names
from unitwork import (
    Database,
    DBSessionMiddleware,
    UnexpectedRollbackError,
    UnitworkError,
    current_unit,
)
from unitwork.testing import Sandbox, SandboxError, sandbox

pytestmark = pytest.mark.anyio


@only("asyncpg", "psycopg-async", "aiosqlite")
async def test_a_cancelled_statement_ends_its_unit_alone(
    flavour: Flavour, box: Sandbox
) -> None:
    await flavour.work(add_item)
    begun = asyncio.Event()

    async def unit() -> None:
        async with flavour.block() as session:
            await flavour.do(session, lambda s: add_item(s, "two"))
            begun.set()
            await flavour.do(session, slowly)

    task = asyncio.create_task(unit())
    await begun.wait()
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await flavour.work(names) == ["one"]


def slowly(session: Session) -> None:
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_sleep(5)"))
    else:
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
        session.execute(text(f"{numbers} SELECT i FROM n LIMIT 1 OFFSET 1000000"))


@only(*POSTGRESQL)
async def test_an_error_that_was_swallowed_is_an_unexpected_rollback(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(session: Session) -> None:
        add_item(session)
        with pytest.raises(Exception, match="SELEKT"):
            session.execute(text("SELEKT"))

    with pytest.raises(UnexpectedRollbackError):
        await flavour.work(work)
    assert await flavour.work(count) == 0


@only("asyncpg")
async def test_an_end_by_the_driver_of_asyncpg(flavour: Flavour) -> None:
    async def escape() -> None:
        async with flavour.db.transaction() as session:
            connection = await session.connection()
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("COMMIT; BEGIN")

    async def swallow() -> None:
        async with entered("async with", flavour.db):
            with pytest.raises(UnitworkError):
                await escape()

    with pytest.raises(SandboxError, match="has ended the transaction"):
        await swallow()


@only(*POSTGRESQL)
async def test_a_connection_that_is_lost_is_named_so(
    flavour: Flavour, observer: Observer
) -> None:
    async def swallow() -> None:
        async with entered("with", flavour.db):
            await flavour.work(add_item)
            observer.terminate_all()
            with pytest.raises(Exception):  # noqa: B017, PT011  # the driver's own
                await flavour.work(count)

    with pytest.raises(SandboxError, match="lost"):
        await swallow()


@only(*EVERY)
async def test_a_unit_that_releases_its_connection_lets_others_go_on(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, count)
        async with current_unit().outside("a slow call"):
            await flavour.work(add_item)

        assert await flavour.do(session, count) == 1


@only("asyncpg")
async def test_a_unit_that_is_open_at_the_end_is_named(flavour: Flavour) -> None:
    block = flavour.db.transaction()

    async def leave_open() -> None:
        async with entered("async with", flavour.db, timeout=0.05):
            session = await block.__aenter__()
            await flavour.do(session, add_item)

    with pytest.raises(SandboxError, match=r"the end .* transaction\(\) block has"):
        await leave_open()
    with pytest.raises(UnitworkError):
        await block.__aexit__(None, None, None)


@only("psycopg", "sqlite3")
def test_a_task_that_outlives_its_test_is_refused(flavour: Flavour) -> None:
    with sandbox(flavour.db) as box:
        late = box.bind(count_in_a_unit)
    with pytest.raises(SandboxError, match="its test is over"):
        late(flavour.db)
    asyncio.run(flavour.dispose())


def count_in_a_unit(db: Database) -> int:
    with db.transaction() as session:
        return count(session)


@only("psycopg", "pymysql")
def test_two_phases_are_for_the_real_mode(flavour: Flavour) -> None:
    app = FastAPI()
    both = [flavour.db, Database(flavour.url, name="other")]
    app.add_middleware(DBSessionMiddleware, db=both, twophase=True)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    with sandbox(flavour.db), pytest.raises(SandboxError, match="in two phases"):
        TestClient(app).post("/")
    asyncio.run(flavour.dispose())


# Replicas, and engines that only a session has. Rails has the same case: in a test, the
# role that reads has the connection of the role that writes.


@pytest.fixture
def replica(flavour: Flavour) -> Iterator[Engine]:
    url = flavour.db.engine.url
    engine = create_engine(url)
    yield engine
    engine.dispose()


def reading_from(replica: Engine, writer: Engine) -> Database[Any]:
    class Routed(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Engine:
            return writer if self._flushing else replica

    return Database(sessionmaker(writer, class_=Routed))


@only("psycopg", "pymysql")
def test_a_replica_shows_what_the_writer_has_committed(
    flavour: Flavour, replica: Engine
) -> None:
    db = reading_from(replica, flavour.db.engine)
    with sandbox(db, replicas=[replica]) as box:
        with db.transaction() as session:
            session.add(Item(name="one"))
        assert count_in_a_unit(db) == 1
        assert names(box.session) == ["one"]

    assert count_in_a_unit(db) == 0
    asyncio.run(flavour.dispose())


@only("psycopg", "pymysql")
def test_an_engine_that_only_get_bind_returns_is_in_the_sandbox(
    flavour: Flavour, replica: Engine, observer: Observer
) -> None:
    db = reading_from(flavour.db.engine, replica)  # it writes there
    with sandbox(db):
        with db.transaction() as session:
            session.add(Item(name="one"))
        assert observer.names() == []
    assert observer.names() == []
    asyncio.run(flavour.dispose())


@only("psycopg", "asyncpg")
async def test_an_outer_unit_that_only_reads_and_an_inner_one_that_writes(
    flavour: Flavour,
) -> None:
    async def nested() -> None:
        async with flavour.block(read_only=True) as session:
            await flavour.do(session, count)
            await flavour.work(add_item)

    async def tried() -> None:
        async with entered("with", flavour.db):
            await nested()

    with pytest.raises(SandboxError, match="real mode"):
        await tried()
