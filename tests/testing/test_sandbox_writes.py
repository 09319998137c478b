"""What counts as a write in a sandbox, and what ends with the transaction of a unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.flavours import Flavour, everywhere, only
from support.models import Item, add_item, names
from unitwork.testing import Sandbox, SandboxError, sandbox

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO item (name) VALUES ('raw')"


def by_cursor(session: Session) -> None:
    cursor = session.connection().connection.cursor()
    cursor.execute(INSERT)
    cursor.close()


def by_connection(session: Session) -> None:
    connection: Any = session.connection().connection
    connection.execute(INSERT)


def by_driver(session: Session) -> None:
    driver: Any = session.connection().connection.driver_connection
    driver.execute(INSERT)


WAYS = pytest.mark.parametrize("write", [by_cursor, by_connection, by_driver])


# The test's own session


@everywhere
async def test_changes_that_are_not_flushed_are_not_committed(
    flavour: Flavour, box: Sandbox
) -> None:
    own = box.session
    own.add(Item(name="lamp"))
    with pytest.raises(SandboxError, match=r"`sandbox\.session`.*not committed"):
        await flavour.work(names)
    await flavour.do(own, lambda session: session.commit())

    assert await flavour.work(names) == ["lamp"]


@only("psycopg", "aiosqlite")
async def test_a_changed_attribute_is_not_committed(
    flavour: Flavour, box: Sandbox
) -> None:
    def change(session: Session, name: str) -> None:
        item = session.query(Item).one()
        item.name = name

    await flavour.work(add_item)
    await flavour.do(box.session, lambda session: change(session, "two"))
    with pytest.raises(SandboxError, match="not committed"):
        await flavour.work(names)
    await flavour.do(box.session, lambda session: session.rollback())
    await flavour.do(box.session, lambda session: change(session, "one"))

    assert await flavour.work(names) == ["one"]


@only("sqlite3", "psycopg")
@WAYS
def test_a_write_past_sqlalchemy_is_not_committed(
    flavour: Flavour, write: Callable[[Session], None]
) -> None:
    with sandbox(flavour.db) as box:
        box.session.scalar(text("SELECT 1"))
        write(box.session)
        with (
            pytest.raises(SandboxError, match="not committed"),
            flavour.db.transaction() as session,
        ):
            names(session)
        box.session.rollback()

        with flavour.db.transaction() as session:
            assert names(session) == []


@only("asyncpg", "aiosqlite")
async def test_a_write_through_an_async_driver_is_not_committed(
    flavour: Flavour,
) -> None:
    async with sandbox(flavour.db) as box:
        await box.session.execute(text("SELECT 1"))
        connection = await box.session.connection()
        raw = await connection.get_raw_connection()
        await raw.driver_connection.execute(INSERT)
        with pytest.raises(SandboxError, match="not committed"):
            await flavour.work(names)
        await box.session.commit()

        assert await flavour.work(names) == ["raw"]


@only("asyncpg", "aiosqlite")
def test_the_session_of_a_plain_function_is_named(flavour: Flavour) -> None:
    async def read() -> None:
        await flavour.work(names)

    with sandbox(flavour.db) as box:
        box.sync_session.add(Item(name="lamp"))
        with pytest.raises(SandboxError, match=r"`sandbox\.sync_session`.*commit"):
            asyncio.run(read())
        box.sync_session.rollback()


# Units


@only("sqlite3", "psycopg")
@WAYS
def test_a_write_past_sqlalchemy_counts_for_its_unit(
    flavour: Flavour, write: Callable[[Session], None]
) -> None:
    def roll_back_around_a_write() -> None:
        with flavour.db.transaction() as outer:
            outer.execute(text("SELECT 1"))
            with flavour.db.transaction() as inner:
                write(inner)
            outer.rollback()

    with sandbox(flavour.db) as box:
        with pytest.raises(SandboxError, match="was committed before"):
            roll_back_around_a_write()
        with pytest.raises(SandboxError):
            box.check()


@only("psycopg", "asyncpg")
@pytest.mark.parametrize("name", ["basket", '"My basket"', "pg_temp.basket"])
async def test_a_table_that_is_dropped_at_commit_is(
    flavour: Flavour, box: Sandbox, name: str
) -> None:
    def fill(session: Session) -> int:
        session.execute(text(f"CREATE TEMP TABLE {name} (id int) ON COMMIT DROP"))
        session.execute(text(f"INSERT INTO {name} VALUES (1)"))
        count: int = session.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
        return count

    assert [await flavour.work(fill) for _ in range(2)] == [1, 1]
