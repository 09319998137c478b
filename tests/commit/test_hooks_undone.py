"""Hooks follow their work, however it was undone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import FEW, POSTGRESQL, Flavour, Observer, everywhere, only
from support.hooking import OurError
from support.models import Child, Item, add_item
from unitwork import Outcome, UnexpectedRollbackError, UnitOfWork, current_unit

pytestmark = pytest.mark.anyio

Body = Callable[[Session], Any]
BY_USER = "session.rollback() was called"


# A savepoint that is rolled back, for whatever reason


def fail_in_flush(session: Session) -> None:
    session.add(Item(name="taken"))
    session.flush()


def fail_in_statement(session: Session) -> None:
    session.execute(insert(Item).values(name="taken"))


def fail_in_the_flush_of_its_release(session: Session) -> None:
    session.add(Item(name="taken"))


def fail_in_python(session: Session) -> None:
    session.add(Item(name="another"))
    raise OurError


def register_once_the_flush_has_failed(session: Session) -> None:
    try:
        fail_in_flush(session)
    except IntegrityError:
        register("late", session.info["done"])
        raise


def roll_back_by_hand(session: Session) -> None:
    savepoint = session.get_nested_transaction()
    assert savepoint is not None
    savepoint.rollback()


FAILURES = [
    fail_in_flush,
    fail_in_statement,
    fail_in_the_flush_of_its_release,
    fail_in_python,
    register_once_the_flush_has_failed,
    roll_back_by_hand,
]
by_name = pytest.mark.parametrize("fails", FAILURES, ids=lambda f: f.__name__)


@everywhere
@by_name
async def test_of_a_savepoint_are_dropped_however_it_was_rolled_back(
    flavour: Flavour, observer: Observer, done: list[str], fails: Body
) -> None:
    def body(session: Session) -> None:
        session.info["done"] = done
        add_item(session, "taken")
        with suppress(OurError, IntegrityError), session.begin_nested():
            register("inside", done)
            fails(session)
        register("outside", done)

    await flavour.work(body)

    assert done == ["before_commit outside", "on_commit outside"]
    assert observer.names() == ["taken"]


@by_name
async def test_of_a_released_savepoint_are_dropped_with_the_one_around_it(
    flavour: Flavour, observer: Observer, done: list[str], fails: Body
) -> None:
    def body(session: Session) -> None:
        session.info["done"] = done
        add_item(session, "taken")
        with suppress(OurError, IntegrityError), session.begin_nested():
            with session.begin_nested():
                register("inside", done)
                add_item(session, "released")
            fails(session)

    await flavour.work(body)

    assert (done, observer.names()) == ([], ["taken"])


@only(*POSTGRESQL)
async def test_of_a_savepoint_whose_release_fails_are_dropped(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        with suppress(DBAPIError), session.begin_nested() as savepoint:
            register("inside", done)
            add_item(session, "inside")
            with suppress(DBAPIError):
                session.execute(text("SELECT 1 / 0"))
            savepoint.commit()

    with pytest.raises((UnexpectedRollbackError, PendingRollbackError)):
        await flavour.work(body)

    assert (done, observer.names()) == (["on_rollback inside"], [])


# A transaction that the application has rolled back


def rolled_back(session: Session) -> None:
    session.rollback()


def duplicate(session: Session) -> None:
    with suppress(IntegrityError):
        session.add_all([Item(id=2, name="two"), Item(id=2, name="two")])
        session.flush()
    session.rollback()


UNDOES: list[Body] = [rolled_back, duplicate]
undoing = pytest.mark.parametrize("undo", UNDOES, ids=lambda f: f.__name__)


@pytest.mark.parametrize("when", ["before", "during", "after"])
@undoing
async def test_of_work_rolled_back_by_hand_are_dropped_in_whichever_order(
    flavour: Flavour, done: list[str], when: str, undo: Body
) -> None:
    units: list[UnitOfWork] = []
    register_when = {when: lambda: register("it", done)}

    def body(session: Session) -> None:
        units.append(current_unit())
        register_when.get("before", int)()
        add_item(session)
        register_when.get("during", int)()
        undo(session)
        register_when.get("after", int)()

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, done[-1:]) == (200, ["on_rollback it"])
    assert "on_commit it" not in done
    assert (units[0].outcome, units[0].reason) == (Outcome.ROLLED_BACK, BY_USER)


async def test_of_a_transaction_left_by_an_exception_are_dropped(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        register("before", done)
        with suppress(IntegrityError), session.begin():
            register("during", done)
            session.add_all([Item(name="two"), Item(name="two")])

    await flavour.work(body)

    assert done == ["on_rollback before", "on_rollback during"]
    assert (units[0].outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


async def test_of_later_work_are_called_though_earlier_work_was_rolled_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        register("first", done)
        add_item(session, "first")
        session.rollback()
        register("second", done)
        add_item(session, "second")

    await flavour.work(body)

    assert done == ["before_commit second", "on_rollback first", "on_commit second"]
    assert (units[0].outcome, observer.names()) == (Outcome.COMMITTED, ["second"])


async def test_are_dropped_if_a_before_commit_hook_rolls_the_work_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)
        units[0].before_commit(flavour.db.current.rollback)
        register("it", done)

    await flavour.work(body)

    assert (done, observer.names()) == (["on_rollback it"], [])
    assert (units[0].outcome, units[0].reason) == (Outcome.ROLLED_BACK, BY_USER)


@FEW
async def test_of_earlier_work_are_called_though_later_work_is_rolled_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session, "first")
        register("first", done)
        session.commit()
        add_item(session, "second")
        register("second", done)
        session.rollback()

    await flavour.work(body)

    assert done[1:] == ["on_commit first", "on_rollback second"]
    assert observer.names() == ["first"]


@FEW
async def test_are_called_without_any_transaction(
    flavour: Flavour, done: list[str]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        register("it", done)

    await flavour.work(body)

    assert done == ["before_commit it", "on_commit it"]
    assert units[0].outcome is Outcome.EMPTY


@only("psycopg", "psycopg-async", "asyncpg")
async def test_of_a_commit_by_hand_that_fails_are_dropped(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        register("it", done)
        session.add(Child(parent_id=999))
        with suppress(IntegrityError):
            session.commit()
        session.rollback()

    await flavour.work(body)

    assert (done, observer.names()) == (["on_rollback it"], [])


def register(name: str, done: list[str]) -> None:
    """Register a hook of each kind."""
    unit = current_unit()
    for kind in ("before_commit", "on_commit", "on_rollback"):
        getattr(unit, kind)(done.append, f"{kind} {name}")
