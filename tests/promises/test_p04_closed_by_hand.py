"""P4: a session that is closed or emptied by hand is no success with nothing stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, close_all_sessions

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import ASYNC, FEW, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio

Body = Callable[[Session], Any]


def leave_the_with(session: Session) -> None:
    with session:
        add_item(session)


def close(session: Session) -> None:
    add_item(session)
    session.close()


def reset(session: Session) -> None:
    add_item(session)
    session.reset()


def close_before_the_flush(session: Session) -> None:
    session.add(Item(name="one"))
    session.close()


def close_all(session: Session) -> None:
    add_item(session)
    close_all_sessions()


CLOSES = [leave_the_with, close, reset, close_before_the_flush, close_all]
closing = pytest.mark.parametrize("body", CLOSES, ids=lambda body: body.__name__)


def invalidate(session: Session) -> None:
    add_item(session)
    session.invalidate()


def drop_what_is_new(session: Session) -> None:
    session.add(Item(name="one"))
    session.expunge_all()


def drop_what_is_changed(session: Session) -> None:
    add_item(session).name = "changed"
    session.expunge_all()


def drop_what_is_to_be_deleted(session: Session) -> None:
    session.delete(add_item(session))
    session.expunge_all()


def close_the_transaction(session: Session) -> None:
    add_item(session)
    transaction = session.get_transaction()
    assert transaction is not None
    transaction.close()


def roll_the_connection_back(session: Session) -> None:
    add_item(session)
    session.connection().rollback()


def roll_the_connection_back_and_go_on(session: Session) -> None:
    roll_the_connection_back(session)
    session.connection().exec_driver_sql("SELECT 1")


def close_the_connection(session: Session) -> None:
    add_item(session)
    session.connection().close()


def roll_its_transaction_back(session: Session) -> None:
    add_item(session)
    transaction = session.connection().get_transaction()
    assert transaction is not None
    transaction.rollback()


DROPS = [
    invalidate,
    drop_what_is_new,
    drop_what_is_changed,
    drop_what_is_to_be_deleted,
    close_the_transaction,
    roll_the_connection_back,
    roll_the_connection_back_and_go_on,
    close_the_connection,
    roll_its_transaction_back,
]
dropping = pytest.mark.parametrize("drop", DROPS, ids=lambda drop: drop.__name__)


# `close()` and `reset()` are left to the unit


@everywhere
@closing
async def test_a_session_that_is_closed_in_an_endpoint_is_committed(
    flavour: Flavour, observer: Observer, body: Body
) -> None:
    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


@closing
async def test_a_session_that_is_closed_in_a_block_is_committed(
    flavour: Flavour, observer: Observer, body: Body
) -> None:
    await flavour.work(body)

    assert observer.names() == ["one"]


@FEW
@closing
async def test_work_after_that_is_committed_as_well(
    flavour: Flavour, observer: Observer, body: Body
) -> None:
    def go_on(session: Session) -> list[str]:
        body(session)
        add_item(session, "two")
        return names(session)

    assert await flavour.work(go_on) == ["one", "two"]
    assert observer.names() == ["one", "two"]


@FEW
async def test_the_objects_stay_in_the_session(flavour: Flavour) -> None:
    def body(session: Session) -> bool:
        item = add_item(session)
        session.close()
        return item in session

    assert await flavour.work(body)


@only(*ASYNC)
@pytest.mark.parametrize("close", [AsyncSession.close, AsyncSession.aclose])
async def test_an_async_session_that_is_closed_by_a_dependency_is_committed(
    flavour: Flavour, observer: Observer, close: Any
) -> None:
    async def get_session() -> AsyncIterator[AsyncSession]:
        async with await flavour.db.session() as session:
            try:
                yield session
            finally:
                await close(session)

    app, injected = FastAPI(), Depends(get_session)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.post("/")
    async def endpoint(session: AsyncSession = injected) -> None:
        session.add(Item(name="one"))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


@FEW
async def test_an_exception_that_leaves_the_with_rolls_its_work_back(
    flavour: Flavour, observer: Observer
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        with suppress(LookupError), session:
            add_item(session)
            raise LookupError

    await flavour.work(body)

    assert (units[0].outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


@only(*ASYNC)
async def test_an_exception_that_leaves_the_async_with_rolls_its_work_back(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        unit = current_unit()
        with suppress(LookupError):
            async with session:
                session.add(Item(name="one"))
                await session.flush()
                raise LookupError

    assert (unit.outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


@only(*ASYNC)
async def test_an_async_with_of_the_session_ends_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    async with flavour.db.transaction() as session:
        session.add(Item(name="one"))
        async with session:
            assert await session.scalar(select(Item.name)) == "one"
        await session.reset()

    assert observer.names() == ["one"]


# Work that is dropped in another way is noticed


@everywhere
@dropping
async def test_work_that_is_dropped_is_no_success(
    flavour: Flavour, observer: Observer, drop: Body
) -> None:
    done: list[str] = []

    def body(session: Session) -> None:
        current_unit().on_commit(done.append, "committed")
        current_unit().on_rollback(done.append, "rolled back")
        drop(session)

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert done == ["rolled back"]


@FEW
@dropping
async def test_a_unit_whose_work_was_dropped_is_rolled_back(
    flavour: Flavour, drop: Body
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        drop(session)

    with pytest.raises(UnexpectedRollbackError, match=r"is lost: .*rollback_only\(\)"):
        await flavour.work(body)

    assert units[0].outcome is Outcome.ROLLED_BACK


@FEW
async def test_a_session_without_changes_may_be_emptied(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.expunge_all()

    await flavour.work(body)

    assert observer.names() == ["one"]


@FEW
async def test_a_session_that_has_not_begun_may_be_invalidated(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.invalidate()
        add_item(session)

    await flavour.work(body)

    assert observer.names() == ["one"]


@FEW
async def test_an_error_response_stays_as_it_is(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        invalidate(session)
        raise LookupError

    with pytest.raises(LookupError):
        await flavour.work(body)

    assert observer.names() == []
