"""`unit.outside()`: nothing is held in the block, and the work goes on after it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item, names
from support.releasing import checked_out, outside
from unitwork import UnexpectedRollbackError, UsageError, current_unit

pytestmark = pytest.mark.anyio


async def store(flavour: Flavour) -> None:
    await flavour.work(add_item)


async def test_holds_no_connection_in_the_block(flavour: Flavour) -> None:
    observer = Observer(flavour.url)
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            assert checked_out(flavour) == 0
            assert observer.in_transaction() == []


async def test_writes_after_the_block(flavour: Flavour, observer: Observer) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            pass
        await flavour.do(session, add_item)

    assert observer.names() == ["one"]


async def test_keeps_loaded_objects_loaded(flavour: Flavour) -> None:
    await store(flavour)
    async with flavour.block() as session:
        item = await flavour.do(session, lambda s: s.scalars(select(Item)).one())
        async with outside():
            assert item.name == "one"
        assert item.name == "one"


async def test_stores_what_was_changed_in_the_block(
    flavour: Flavour, observer: Observer
) -> None:
    await store(flavour)
    async with flavour.block() as session:
        item = await flavour.do(session, lambda s: s.scalars(select(Item)).one())
        async with outside():
            item.name = "two"
        await flavour.do(session, lambda s: add_item(s, "three"))

    assert observer.names() == ["two", "three"]


async def test_keeps_unflushed_objects_pending(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        await flavour.do(session, lambda s: s.add(Item(name="one")))
        async with outside():
            assert len(session.new) == 1
        await flavour.do(session, names)

    assert observer.names() == ["one"]


@pytest.mark.parametrize("use", [names, add_item, lambda s: s.get(Item, 1)])
async def test_refuses_statements_in_the_block(flavour: Flavour, use: Any) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside("openai"):
            with pytest.raises(UsageError, match=r"outside\('openai'\)"):
                await flavour.do(session, use)
        await flavour.do(session, lambda s: s.rollback())


async def test_refuses_statements_also_if_nothing_was_open(flavour: Flavour) -> None:
    async with flavour.block() as session, outside():
        with pytest.raises(UsageError, match="outside"):
            await flavour.do(session, names)


async def test_refuses_statements_of_a_task_beside_the_block(flavour: Flavour) -> None:
    inside, used = asyncio.Event(), asyncio.Event()

    async def call() -> None:
        async with outside():
            inside.set()
            await used.wait()

    async with flavour.block() as session:
        task = asyncio.create_task(call())
        await inside.wait()
        with pytest.raises(UsageError, match="another task"):
            await flavour.do(session, names)
        used.set()
        await task


async def test_sessions_work_once_the_last_of_several_blocks_is_left(
    flavour: Flavour,
) -> None:
    async with flavour.block() as session:
        async with outside():
            async with outside("inner"):
                pass
            with pytest.raises(UsageError):
                await flavour.do(session, names)
        assert await flavour.do(session, names) == []


async def test_work_of_its_own_unit_goes_on_in_the_block(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            await store(flavour)
        assert await flavour.do(session, names) == ["one"]


async def test_begins_again_with_the_same_options(flavour: Flavour) -> None:
    async with flavour.block(read_only=True, lock_timeout=2) as session:
        before = await flavour.do(session, show)
        async with outside():
            pass
        assert await flavour.do(session, show) == before


def show(session: Session) -> Any:
    if session.get_bind().dialect.name == "sqlite":
        return session.execute(text("PRAGMA query_only")).scalar()
    shown = "SELECT current_setting('transaction_read_only'), "
    return session.execute(text(shown + "current_setting('lock_timeout')")).one()


@only("psycopg", "psycopg-async", "asyncpg")
async def test_the_next_transaction_has_an_id_of_its_own(flavour: Flavour) -> None:
    query = text("SELECT txid_current_if_assigned()")
    async with flavour.block() as session:
        before = await flavour.do(session, lambda s: s.scalar(query))
        async with outside():
            pass
        after = await flavour.do(session, lambda s: s.scalar(query))

    assert None not in (before, after)
    assert before != after


async def test_rolls_back_what_is_written_after_it(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            current_unit().rollback_only("dry run")
        await flavour.do(session, add_item)

    assert observer.names() == []


async def test_hooks_registered_before_it_are_called(
    flavour: Flavour, done: list[str]
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        current_unit().on_commit(done.append, "committed")
        async with outside():
            assert done == []
        await flavour.do(session, add_item)

    assert done == ["committed"]


async def test_hooks_are_dropped_with_what_was_written_after_it(
    flavour: Flavour, done: list[str]
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        current_unit().on_commit(done.append, "committed")
        async with outside():
            pass
        await flavour.do(session, add_item)
        await flavour.do(session, lambda s: s.rollback())

    assert done == []


async def test_the_error_of_the_block_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    async def fail() -> None:
        async with flavour.block() as session:
            await flavour.do(session, lambda s: s.add(Item(name="one")))
            async with outside():
                raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert observer.names() == []


async def test_a_lost_connection_in_the_block_costs_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        async with outside():
            pass
        await flavour.do(session, lambda s: s.connection().invalidate())
        with pytest.raises(UsageError, match="connection was lost"):
            async with outside():
                pass
        await flavour.do(session, lambda s: s.rollback())
        await flavour.do(session, add_item)

    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_a_server_that_has_ended_the_transaction_is_reported(
    flavour: Flavour, observer: Observer
) -> None:
    async def swallow() -> None:
        async with flavour.block() as session:
            await flavour.do(session, names)
            observer.terminate_all()
            with pytest.raises(DBAPIError):
                async with outside():
                    pass

    with pytest.raises(UnexpectedRollbackError):
        await swallow()


async def test_release_is_the_block_without_its_inside(flavour: Flavour) -> None:
    async with flavour.block() as session:
        await flavour.do(session, names)
        await current_unit().release()
        assert checked_out(flavour) == 0
        assert await flavour.do(session, names) == []


@only(*POSTGRESQL)
async def test_is_not_refused_because_of_earlier_ddl_on_the_connection(
    flavour: Flavour,
) -> None:
    narrow = flavour.another(pool_size=1, max_overflow=0)
    await narrow.create_tables()
    async with narrow.block() as session:
        await narrow.do(session, names)
        async with outside():
            assert checked_out(narrow) == 0
    await narrow.dispose()
