"""Hooks: when they are called, and what drops them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy import event
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import FEW, Flavour, Observer
from support.hooking import OurError, on_commit
from support.models import Item, add_item, add_orphan
from unitwork import Outcome, UnitOfWork, current_unit

pytestmark = pytest.mark.anyio


# When they are called


async def test_is_called_when_no_transaction_was_begun(
    flavour: Flavour, done: list[str]
) -> None:
    await flavour.work(lambda s: on_commit(done.append, "here"))

    assert done == ["here"]


async def test_is_not_called_before_commit(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(lambda: done.extend(observer.names()))
        assert done == []

    await flavour.work(body)

    assert done == ["one"]


async def test_is_dropped_when_the_unit_is_rolled_back(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(done.append, "dropped")
        current_unit().before_commit(done.append, "dropped")
        raise OurError

    with pytest.raises(OurError):
        await flavour.work(body)

    assert done == []


async def test_is_dropped_when_commit_fails(flavour: Flavour, done: list[str]) -> None:
    def body(session: Session) -> None:
        add_orphan(session)
        on_commit(done.append, "dropped")
        current_unit().on_rollback(done.append, "rolled back")

    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await flavour.work(body)

    assert done == ["rolled back"]


async def test_is_called_after_the_outermost_transaction_only(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            with session.begin_nested():
                add_item(session)
                on_commit(lambda: done.extend(observer.names()))
            assert done == []
        assert done == []

    await flavour.work(body)

    assert done == ["one"]


@pytest.mark.parametrize("in_request", [False, True])
async def test_is_called_if_the_flush_of_commit_is_the_first_to_register_one(
    flavour: Flavour, done: list[str], in_request: bool
) -> None:
    def body(session: Session) -> None:
        event.listen(
            session, "before_flush", lambda *args: on_commit(done.append, "committed")
        )
        session.add(Item(name="one"))

    if in_request:
        await call(serve_fastapi(flavour, body), "POST", "/")
    else:
        await flavour.work(body)

    assert done == ["committed"]


async def test_is_dropped_with_its_savepoint(flavour: Flavour, done: list[str]) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "before")
        with suppress(OurError), session.begin_nested():
            on_commit(done.append, "inside")
            current_unit().before_commit(done.append, "inside")
            raise OurError
        on_commit(done.append, "after")

    await flavour.work(body)

    assert done == ["before", "after"]


async def test_is_dropped_with_the_savepoint_around_its_own(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            on_commit(done.append, "first")
        with suppress(OurError), session.begin_nested():
            with session.begin_nested():
                on_commit(done.append, "inner")
            raise OurError

    await flavour.work(body)

    assert done == ["first"]


async def test_outlives_the_savepoint_inside_its_own(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            on_commit(done.append, "outer")
            with suppress(OurError), session.begin_nested():
                on_commit(done.append, "inner")
                raise OurError

    await flavour.work(body)

    assert done == ["outer"]


async def test_of_a_joined_block_belongs_to_the_unit_around(
    flavour: Flavour, done: list[str]
) -> None:
    async def unit() -> None:
        await flavour.work(lambda s: on_commit(done.append, "joined"), nested="join")
        done.append("around")

    await around(flavour, unit)

    assert done == ["around", "joined"]


async def test_of_a_savepoint_block_is_dropped_with_it(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        on_commit(done.append, "inner")
        raise OurError

    async def unit() -> None:
        with pytest.raises(OurError):
            await flavour.work(body, nested="savepoint")
        on_commit(done.append, "outer")

    await around(flavour, unit)

    assert done == ["outer"]


async def test_of_a_block_of_its_own_is_called_at_once(
    flavour: Flavour, done: list[str]
) -> None:
    async def unit() -> None:
        await flavour.work(lambda s: on_commit(done.append, "inner"), nested="own")
        done.append("outer")

    await around(flavour, unit)

    assert done == ["inner", "outer"]


async def around(flavour: Flavour, inner: Callable[[], Any]) -> None:
    """Run *inner* in the unit of a request."""
    app = serve_fastapi(flavour, lambda s: None)
    app.get("/around")(inner)
    reply = await call(app, "GET", "/around")
    assert (reply.status, reply.error) == (200, None)


# Once, and never again


@FEW
async def test_are_forgotten_with_their_unit(flavour: Flavour, done: list[str]) -> None:
    def committed(session: Session) -> None:
        on_commit(done.append, "committed")

    def rolled_back(session: Session) -> None:
        add_item(session)
        on_commit(done.append, "rolled back")
        current_unit().rollback_only()

    for body in (committed, rolled_back, committed):
        await flavour.work(body)

    assert done == ["committed", "committed"]


# The session's own commit() and rollback() in mid-unit


async def test_are_dropped_when_the_user_rolls_the_session_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session, "lost")
        on_commit(done.append, "dropped")
        session.rollback()
        add_item(session, "kept")
        on_commit(done.append, "kept")

    await flavour.work(body)

    assert (done, observer.names()) == (["kept"], ["kept"])


async def test_are_due_once_the_user_has_committed_the_session(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session, "kept")
        on_commit(done.append, "due")
        session.commit()
        add_item(session, "lost")
        on_commit(done.append, "dropped")
        raise HTTPException(400)

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (400, ["kept"])
    assert done == ["due"]


async def test_are_not_due_for_a_savepoint_that_was_released(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            add_item(session)
            on_commit(done.append, "dropped")
        current_unit().rollback_only()

    await flavour.work(body)

    assert done == []


# With a commit by hand


@FEW
async def test_a_commit_by_hand_is_one_whatever_comes_later(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        unit = current_unit()
        unit.on_commit(done.append, "committed, first")
        unit.on_rollback(done.append, "rolled back, first")
        add_item(session)
        session.commit()
        unit.on_commit(done.append, "committed, second")
        unit.on_rollback(done.append, "rolled back, second")
        add_item(session, "two")
        raise HTTPException(400)

    await call(serve_fastapi(flavour, body), "POST", "/")

    assert done == ["committed, first", "rolled back, second"]
    assert observer.names() == ["one"]


@FEW
async def test_a_unit_that_was_committed_by_hand_alone_is_not_empty(
    flavour: Flavour, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        units[0].on_rollback(done.append, "rolled back")
        add_item(session)
        session.commit()
        raise HTTPException(400)

    await call(serve_fastapi(flavour, body), "POST", "/")

    assert units[0].outcome is Outcome.COMMITTED
    assert (units[0].reason, done) == ("session.commit() was called", [])
