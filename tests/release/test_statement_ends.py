"""Release mode "statement": what ends by hand, and what must not end with a read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import event as events
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from support.databases import check_nothing_is_left
from support.flavours import POSTGRESQL, SERVERS, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from support.pool import eventually
from support.releasing import checked_out, releasing
from unitwork import Outcome, current_unit

pytestmark = pytest.mark.anyio

INSERT = "INSERT INTO item (name) VALUES ('one')"
SLOW = text("SELECT pg_sleep(0.2)").execution_options(unitwork_only_reads=True)


@everywhere
async def test_rollback_by_hand_after_reads_drops_the_hooks(
    released: Flavour, done: list[str]
) -> None:
    def read_and_roll_back(session: Session) -> None:
        names(session)
        current_unit().on_commit(done.append, "committed")
        current_unit().on_rollback(done.append, "rolled back")
        session.rollback()

    await released.work(read_and_roll_back)

    assert done == ["rolled back"]


@everywhere
async def test_rollback_by_hand_after_reads_expires_what_was_loaded(
    flavour: Flavour, released: Flavour
) -> None:
    def rename(session: Session) -> None:
        session.get_one(Item, 1).name = "two"

    await flavour.work(lambda s: s.add(Item(id=1, name="one")))
    async with released.block() as session:
        item = await released.do(session, lambda s: s.get_one(Item, 1))
        await flavour.work(rename)
        await released.do(session, lambda s: s.rollback())
        assert await released.do(session, lambda s: item.name) == "two"


@everywhere
async def test_rollback_by_hand_after_a_commit_by_hand_undoes_nothing(
    released: Flavour, done: list[str]
) -> None:
    def write_and_end(session: Session) -> None:
        current_unit().on_commit(done.append, "committed")
        names(session)
        session.execute(text(INSERT))
        session.commit()
        session.rollback()

    async with released.block() as session:
        unit = current_unit()
        await released.do(session, write_and_end)

    assert unit.outcome is Outcome.COMMITTED
    assert done == ["committed"]


@everywhere
async def test_hooks_run_if_the_unit_reads_on_after_a_rollback_by_hand(
    released: Flavour, done: list[str]
) -> None:
    def write_undo_and_read(session: Session) -> None:
        add_item(session)
        session.rollback()
        names(session)
        current_unit().on_commit(done.append, "committed")
        current_unit().on_rollback(done.append, "rolled back")

    async with released.block() as session:
        unit = current_unit()
        await released.do(session, write_undo_and_read)

    assert unit.outcome is Outcome.EMPTY
    assert done == ["committed"]


@everywhere
async def test_hooks_of_a_released_transaction_are_dropped_with_later_work(
    released: Flavour, done: list[str]
) -> None:
    def register_and_roll_back(session: Session) -> None:
        session.add(item := Item(name="one"))
        session.expunge(item)
        current_unit().on_commit(done.append, "committed")
        names(session)
        add_item(session)
        session.rollback()
        add_item(session, "two")

    await released.work(register_and_roll_back)

    assert done == []


@only("asyncpg", "psycopg-async")
async def test_what_is_changed_beside_a_read_is_undone_by_hand(
    flavour: Flavour, released: Flavour, observer: Observer
) -> None:
    await flavour.work(add_item)
    async with released.block() as session:
        item = (await session.scalars(select(Item))).one()
        read = asyncio.create_task(session.execute(SLOW))
        await eventually(lambda: checked_out(released) == 1)
        item.name = "two"
        await read
        await session.rollback()

    assert observer.names() == ["one"]


@only(*SERVERS)
@pytest.mark.parametrize("when", ["before_cursor_execute", "after_cursor_execute"])
async def test_what_a_listener_writes_beside_a_read_is_committed(
    flavour: Flavour, observer: Observer, when: Any
) -> None:
    released = releasing(flavour)

    @events.listens_for(released.sync_engine, when)
    def write(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        if statement.startswith("SELECT item.id"):
            connection.connection.cursor().execute(INSERT)

    await released.work(lambda s: s.get(Item, 1) and None)

    assert observer.names() == ["one"]
    await check_nothing_is_left(released)
    await released.dispose()


@only(*POSTGRESQL)
async def test_what_a_listener_writes_is_rolled_back_with_its_unit(
    flavour: Flavour, observer: Observer
) -> None:
    released = releasing(flavour)

    @events.listens_for(released.sync_engine, "after_cursor_execute")
    def write(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        if statement.startswith("SELECT item.id"):
            connection.connection.cursor().execute(INSERT)

    def read_and_fail(session: Session) -> None:
        session.get(Item, 1)
        raise LookupError

    with pytest.raises(LookupError):
        await released.work(read_and_fail)

    assert observer.names() == []
    await check_nothing_is_left(released)
    await released.dispose()


@only(*POSTGRESQL)
async def test_a_connection_of_another_isolation_level_begins(
    released: Flavour, observer: Observer
) -> None:
    def connect(session: Session) -> str:
        options = {"isolation_level": "SERIALIZABLE"}
        connection = session.connection(execution_options=options)
        connection.execute(insert(Item), {"name": "one"})
        return str(connection.scalar(text("SHOW transaction_isolation")))

    assert await released.work(connect) == "serializable"
    assert observer.names() == ["one"]
