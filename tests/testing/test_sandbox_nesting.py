"""A unit inside another one is a savepoint in it, and a transaction of its own."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from support.flavours import POSTGRESQL, Flavour, only
from support.models import Item, add_item, add_orphan
from support.sandboxes import entered, names
from unitwork.testing import Sandbox, SandboxError

pytestmark = pytest.mark.anyio


async def insert_and_invalidate(flavour: Flavour) -> None:
    if flavour.is_async:
        async with flavour.db.engine.connect() as connection:
            await connection.execute(insert(Item).values(name="inner"))
            await connection.invalidate()
    else:
        with flavour.db.engine.connect() as connection:
            connection.execute(insert(Item).values(name="inner"))
            connection.invalidate()


@only("sqlite3", "aiosqlite", "psycopg", "asyncpg")
async def test_an_inner_one_that_is_broken_off_takes_nothing_along(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        await insert_and_invalidate(flavour)
        await flavour.do(session, lambda session: add_item(session, "two"))

    assert await flavour.work(names) == ["one", "two"]


def set_memory(size: str) -> str:
    return f"SET LOCAL work_mem = '{size}'"


def memory(session: Session) -> str:
    return str(session.scalar(text("SHOW work_mem")))


@only(*POSTGRESQL)
async def test_an_inner_one_leaves_the_settings_of_the_outer_one(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as outer:
        await flavour.do(outer, lambda s: s.execute(text(set_memory("1MB"))))
        await flavour.work(lambda s: s.execute(text(set_memory("2MB"))))

        assert await flavour.do(outer, memory) == "1MB"
    assert await flavour.work(memory) == "4MB"


@only(*POSTGRESQL)
async def test_an_inner_one_does_not_have_the_settings_of_the_outer_one(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as outer:
        await flavour.do(outer, lambda s: s.execute(text(set_memory("1MB"))))

        assert await flavour.work(memory) == "4MB"
        assert await flavour.do(outer, memory) == "1MB"


def create_and_fail(session: Session) -> None:
    session.execute(
        text(
            "CREATE TABLE undone (parent_id int REFERENCES item (id)"
            " DEFERRABLE INITIALLY DEFERRED)"
        )
    )
    add_orphan(session)


@only(*POSTGRESQL)
async def test_constraints_that_were_rolled_back_are_not_checked(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(IntegrityError):
        await flavour.work(create_and_fail)
    await flavour.work(add_item)

    assert await flavour.work(names) == ["one"]


def add_parent(session: Session) -> None:
    session.add(Item(id=999, name="parent"))


@only("sqlite3", "aiosqlite", *POSTGRESQL)
async def test_a_constraint_that_the_outer_one_has_yet_to_fulfil(
    flavour: Flavour,
) -> None:
    async def nested() -> None:
        async with entered("with", flavour.db), flavour.block() as outer:
            await flavour.do(outer, add_orphan)
            await flavour.work(add_item)
            await flavour.do(outer, add_parent)

    with pytest.raises(SandboxError, match=r"checked together.*real mode"):
        await nested()


@only(*POSTGRESQL)
async def test_constraints_that_the_outer_one_has_set(flavour: Flavour) -> None:
    async def nested() -> None:
        async with entered("with", flavour.db), flavour.block() as outer:
            statement = text("SET CONSTRAINTS ALL IMMEDIATE")
            await flavour.do(outer, lambda session: session.execute(statement))
            await flavour.work(add_item)

    with pytest.raises(SandboxError, match="SET CONSTRAINTS"):
        await nested()
