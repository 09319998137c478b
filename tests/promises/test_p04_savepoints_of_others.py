"""P4: a savepoint takes along what another task or thread did while it was open."""

from __future__ import annotations

import asyncio
from asyncio import Event
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.beside_savepoint import Beside
from support.driver import send
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import UnexpectedRollbackError, current_unit

pytestmark = [pytest.mark.anyio, only(*ASYNC, "asyncmy")]

Undo = Callable[[AsyncSession, Event, Event], Coroutine[Any, Any, None]]
INSERT = text("INSERT INTO item (name) VALUES ('beside')")


@pytest.fixture(
    params=product(["block", "request"], ["transaction", "begin_nested"]), ids="-".join
)
def beside(flavour: Flavour, observer: Observer, request: Any) -> Beside:
    return Beside(flavour, *request.param)


@pytest.fixture(params=["connection", "SQL"])
def of_connection(flavour: Flavour, observer: Observer, request: Any) -> Beside:
    """A savepoint that the session knows nothing of."""
    return Beside(flavour, "request", request.param)


def find_item(session: Session) -> Item:
    return session.scalars(select(Item)).one()


async def is_refused(beside: Beside, body: Callable[[Session], Any]) -> None:
    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.around(body)


async def is_refused_beside(flavour: Flavour, undo: Undo) -> None:
    """A statement that is executed between the events that *undo* sets and awaits."""

    async def unit() -> None:
        is_open, go_on = Event(), Event()
        async with flavour.db.transaction() as session:
            task = asyncio.create_task(undo(session, is_open, go_on))
            await is_open.wait()
            await session.execute(INSERT)
            go_on.set()
            await task

    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await unit()


async def test_a_statement_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: session.execute(INSERT))

    assert observer.names() == []


async def test_a_flush_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, add_item)

    assert observer.names() == []


async def test_a_failing_flush_beside_it(beside: Beside, observer: Observer) -> None:
    def body(session: Session) -> None:
        session.execute(INSERT)
        with suppress(IntegrityError):
            add_item(session, "before")

    beside.error = None
    await is_refused(beside, body)

    assert observer.names() == []


async def test_what_is_added_beside_it(beside: Beside, observer: Observer) -> None:
    beside.work = Session.flush
    await is_refused(beside, lambda session: session.add(Item(name="beside")))

    assert observer.names() == []


async def test_a_change_beside_it(beside: Beside, observer: Observer) -> None:
    def change(session: Session) -> None:
        find_item(session).name = "changed"

    beside.work = Session.flush
    await is_refused(beside, change)

    assert observer.names() == []


async def test_a_change_beside_it_of_what_it_has_changed(
    flavour: Flavour, observer: Observer
) -> None:
    changed, go_on = Event(), Event()

    async def fail(session: AsyncSession, item: Item) -> None:
        with suppress(LookupError):
            async with session.begin_nested():
                item.name = "undone"
                changed.set()
                await go_on.wait()
                raise LookupError

    async def work() -> None:
        async with flavour.db.transaction() as session:
            item = await session.run_sync(add_item)
            task = asyncio.create_task(fail(session, item))
            await changed.wait()
            item.id = 7
            go_on.set()
            await task

    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await work()
    assert observer.names() == []


async def test_a_change_beside_it_after_it_has_dropped_all_objects(
    beside: Beside, observer: Observer
) -> None:
    def change(session: Session) -> None:
        session.expunge_all()
        find_item(session).name = "changed"

    beside.work = Session.flush
    await is_refused(beside, change)

    assert observer.names() == []


async def test_one_inside_another_that_is_released_before_it(
    flavour: Flavour, observer: Observer
) -> None:
    inner_is_open, is_released = Event(), Event()

    async def fail(session: AsyncSession) -> None:
        async with session.begin_nested():
            await session.run_sync(add_item, "half")
            inner_is_open.set()
            await is_released.wait()
            raise LookupError

    async def work() -> None:
        async with flavour.db.transaction() as session:
            async with session.begin_nested():
                tasks.append(asyncio.create_task(fail(session)))
                await inner_is_open.wait()
            asyncio.get_running_loop().call_soon(is_released.set)

    tasks: list[asyncio.Task[None]] = []
    with pytest.raises(UnexpectedRollbackError, match="was released"):
        await work()
    await asyncio.wait(tasks)
    assert [type(task.exception()) for task in tasks] == [LookupError]
    assert observer.names() == []


async def test_a_deletion_beside_it(beside: Beside, observer: Observer) -> None:
    beside.work = Session.flush
    await is_refused(beside, lambda session: session.delete(find_item(session)))

    assert observer.names() == []


async def test_a_call_of_the_driver_beside_it(
    beside: Beside, observer: Observer
) -> None:
    await is_refused(beside, lambda session: send(session, INSERT.text))

    assert observer.names() == []


async def test_a_hook_registered_beside_it(beside: Beside, observer: Observer) -> None:
    await is_refused(beside, lambda session: current_unit().on_commit(print))

    assert observer.names() == []


async def test_a_read_beside_it_loses_nothing(
    beside: Beside, observer: Observer
) -> None:
    await beside.around(lambda session: session.scalars(select(Item)).all())

    assert observer.names() == ["before"]


async def test_what_is_done_beside_one_that_ends_well_is_stored(
    beside: Beside, observer: Observer
) -> None:
    beside.error = None
    await beside.around(lambda session: session.execute(INSERT))

    assert observer.names() == ["before", "beside"]


async def test_a_task_of_its_own_may_work_inside_it(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        await session.run_sync(add_item, "before")
        with suppress(LookupError):
            async with session.begin_nested():
                await asyncio.create_task(session.run_sync(add_item, "inside"))
                raise LookupError

    assert observer.names() == ["before"]


async def test_a_savepoint_inside_it_that_it_releases_too_early(
    beside: Beside, flavour: Flavour, observer: Observer
) -> None:
    async def work(session: AsyncSession) -> None:
        task = asyncio.create_task(beside.savepoint())
        await beside.is_open.wait()
        with suppress(LookupError):
            async with session.begin_nested():
                await session.run_sync(add_item, "undone")
                beside.go_on.set()
                await task
                raise LookupError

    beside.error = None
    with pytest.raises(UnexpectedRollbackError, match="another task or thread"):
        await beside.in_unit(work)

    assert observer.names() == []


async def test_a_statement_beside_one_of_the_connection(
    of_connection: Beside, observer: Observer
) -> None:
    await is_refused(of_connection, lambda session: session.execute(INSERT))

    assert observer.names() == []


async def test_a_statement_beside_one_that_sql_rolls_back_to_twice(
    flavour: Flavour, observer: Observer
) -> None:
    async def roll_back_twice(
        session: AsyncSession, undone: Event, go_on: Event
    ) -> None:
        await session.execute(text("SAVEPOINT ours"))
        await session.execute(text("ROLLBACK TO ours"))
        undone.set()
        await go_on.wait()
        await session.execute(text("ROLLBACK TO ours"))

    await is_refused_beside(flavour, roll_back_twice)
    assert observer.names() == []


async def test_a_statement_beside_one_of_the_session_that_sql_rolls_back_to(
    flavour: Flavour, observer: Observer
) -> None:
    async def roll_back(session: AsyncSession, is_open: Event, go_on: Event) -> None:
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))
            is_open.set()
            await go_on.wait()
            await session.execute(text("ROLLBACK TO sa_savepoint_1"))

    await is_refused_beside(flavour, roll_back)
    assert observer.names() == []


async def test_a_read_beside_one_of_the_connection_loses_nothing(
    of_connection: Beside, observer: Observer
) -> None:
    await of_connection.around(lambda session: session.scalars(select(Item)).all())

    assert observer.names() == ["before"]


async def test_what_is_done_beside_one_of_the_connection_that_ends_well(
    of_connection: Beside, observer: Observer
) -> None:
    of_connection.error = None
    await of_connection.around(lambda session: session.execute(INSERT))

    assert observer.names() == ["before", "beside"]


async def test_one_of_the_connection_undoes_its_own_work(
    of_connection: Beside, observer: Observer
) -> None:
    of_connection.work = lambda session: session.execute(INSERT)
    await of_connection.around(lambda session: None)

    assert observer.names() == ["before"]


async def test_a_savepoint_inside_one_of_the_connection_is_undone_alone(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        connection = await session.connection()
        async with connection.begin_nested():
            await session.run_sync(add_item, "kept")
            with suppress(IntegrityError):
                async with session.begin_nested():
                    await session.run_sync(add_item, "kept")

    assert observer.names() == ["kept"]
