"""Hooks: in which order they are called."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
from sqlalchemy.orm import Session

from support.cancelling import KINDS, Kind, at_each_suspension
from support.flavours import FEW, Flavour, Observer, only
from support.hooking import OurError, on_commit
from support.models import add_item
from unitwork import current_unit

pytestmark = pytest.mark.anyio


async def test_are_called_in_the_order_in_which_they_were_registered(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "one")
        add_item(session)
        with session.begin_nested():
            on_commit(done.append, "two")
        on_commit(done.append, "three")
        current_unit().before_commit(done.append, "zero")

    await flavour.work(body)

    assert done == ["zero", "one", "two", "three"]


@FEW
async def test_may_register_others_which_come_last(
    flavour: Flavour, done: list[str]
) -> None:
    def first() -> None:
        done.append("first")
        on_commit(done.append, "third")

    def body(session: Session) -> None:
        on_commit(first)
        on_commit(done.append, "second")

    await flavour.work(body)

    assert done == ["first", "second", "third"]


@FEW
async def test_of_before_commit_may_register_any(
    flavour: Flavour, done: list[str]
) -> None:
    def check() -> None:
        current_unit().before_commit(done.append, "before")
        current_unit().on_commit(done.append, "after")

    def body(session: Session) -> None:
        add_item(session)
        current_unit().before_commit(check)

    await flavour.work(body)

    assert done == ["before", "after"]


async def test_on_rollback_are_called_after_the_rollback(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(done.append, "first")
        current_unit().on_rollback(lambda: done.extend(observer.names()))
        raise OurError

    with pytest.raises(OurError):
        await flavour.work(body)

    assert done == ["first"]


async def test_on_rollback_are_not_called_after_a_commit(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(done.append, "never")

    await flavour.work(body)

    assert done == []


@only("aiosqlite", "psycopg-async")  # asyncpg complains of a TLS that is cancelled
@pytest.mark.parametrize("kind", KINDS)
async def test_on_rollback_are_called_at_whichever_suspension_a_block_is_cancelled(
    flavour: Flavour, done: list[str], kind: Kind
) -> None:
    async def refuse() -> None:
        raise OurError

    async def block(k: int) -> None:
        done.clear()
        with suppress(OurError):
            async with flavour.db.transaction() as session:
                current_unit().on_rollback(done.append, f"rolled back {k}")
                current_unit().before_commit(refuse)
                await flavour.do(session, add_item)

    await flavour.work(partial(add_item, name="before"))  # there is a connection now
    async for k in at_each_suspension(block, kind):
        assert done == [f"rolled back {k}"]


async def test_on_rollback_outlive_a_savepoint(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with suppress(OurError), session.begin_nested():
            current_unit().on_rollback(done.append, "called")
            raise OurError
        current_unit().rollback_only()

    await flavour.work(body)

    assert done == ["called"]
