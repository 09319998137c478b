"""P4: a transaction that is ended and begun anew past the session is no success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.driver import INSERT, send
from support.endpoints import serve_fastapi
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    Outcome,
    UnitOfWork,
    current_unit,
)
from unitwork._transaction.connection_state import loan_of

pytestmark = pytest.mark.anyio

Body = Callable[[Session], object]
Send = Callable[[Session, str], None]

ENDS = ["ROLLBACK; BEGIN", "COMMIT; BEGIN", "ROLLBACK AND CHAIN", "COMMIT AND CHAIN"]
HOOKS = ["on_commit", "on_rollback", "on_unknown"]

each_end = pytest.mark.parametrize("end", ENDS)


class Posted:
    """A request to an application whose endpoint has run *body*."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.unit: UnitOfWork
        self.reply: Reply

    @property
    def error(self) -> BaseException | None:
        return self.reply.error


async def post(flavour: Flavour, body: Body) -> Posted:
    posted = Posted()

    def noted(session: Session) -> None:
        posted.unit = unit = current_unit()
        for hook in HOOKS:
            getattr(unit, hook)(posted.hooks.append, hook)
        body(session)

    app = serve_fastapi(flavour, noted, answer_errors=False)
    posted.reply = await call(app, "POST", "/")
    return posted


def by_text(session: Session, sql: str) -> None:
    session.execute(text(sql))


def one_by_one(session: Session, sql: str) -> None:
    for each in sql.split("; "):
        send(session, each)


# COMMIT


@only(*POSTGRESQL)
@each_end
@pytest.mark.parametrize("how", [send, one_by_one])
async def test_another_transaction_is_not_committed(
    flavour: Flavour, observer: Observer, end: str, how: Send
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        how(session, end)
        send(session, INSERT)

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert posted.unit.outcome is Outcome.UNKNOWN
    assert posted.hooks == ["on_unknown"]
    assert "by the driver" not in observer.names()


@only(*POSTGRESQL)
async def test_one_that_the_driver_has_committed_says_nothing_of_the_next(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        send(session, "COMMIT; BEGIN")
        add_item(session)
        observer.terminate_all()

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert posted.hooks == ["on_unknown"]
    assert observer.names() == []


@only(*POSTGRESQL)
async def test_nor_of_the_next_that_the_driver_has_rolled_back(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        send(session, "COMMIT; BEGIN")
        send(session, INSERT)
        send(session, "ROLLBACK")

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert observer.names() == []


@only("psycopg", "psycopg-async")  # asyncpg's adapter sends one statement at a time
@each_end
async def test_nor_one_that_several_statements_in_one_text_have_begun(
    flavour: Flavour, observer: Observer, end: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        by_text(session, f"{end}; {INSERT}")

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert "by the driver" not in observer.names()


@only(*POSTGRESQL)
async def test_nor_what_the_session_adds_to_it(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "ROLLBACK; BEGIN")
        add_item(session, "two")
        add_item(session, "three")

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert observer.names() == []


@only(*POSTGRESQL)
@each_end
async def test_nor_by_the_application(
    flavour: Flavour, observer: Observer, end: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, end)
        send(session, INSERT)
        session.commit()

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert "by the driver" not in observer.names()


@only(*POSTGRESQL)
async def test_nor_one_that_has_written_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "ROLLBACK; BEGIN")

    posted = await post(flavour, body)

    assert isinstance(posted.error, CommitUnknownError)
    assert observer.names() == []


# ROLLBACK


@only(*POSTGRESQL)
@pytest.mark.parametrize("end", ["COMMIT; BEGIN", "COMMIT AND CHAIN"])
async def test_a_rollback_that_comes_too_late_is_none(
    flavour: Flavour, observer: Observer, end: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, end)
        raise LookupError

    posted = await post(flavour, body)

    assert isinstance(posted.error, LookupError)
    assert posted.unit.outcome is Outcome.UNKNOWN
    assert posted.hooks == ["on_unknown"]
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_nor_is_one_after_an_error(flavour: Flavour, observer: Observer) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT; BEGIN")
        send(session, "SELECT 1 / 0")

    posted = await post(flavour, body)

    assert posted.unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
@pytest.mark.parametrize("sql", [INSERT, "SELECT 1 / 0", "SELECT 1; SELECT 2"])
async def test_an_ordinary_one_is_a_rollback(
    flavour: Flavour, observer: Observer, sql: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, sql)
        raise LookupError

    posted = await post(flavour, body)

    assert posted.unit.outcome is Outcome.ROLLED_BACK
    assert posted.hooks == ["on_rollback"]
    assert observer.names() == []


# What replaces nothing


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "SAVEPOINT here; SELECT 1; ROLLBACK TO here",
        "SELECT 'COMMIT; BEGIN'",
        "COMMIT; BEGIN",
    ],
)
async def test_whatever_the_driver_sends_before_the_first_write_is_no_obstacle(
    flavour: Flavour, observer: Observer, sql: str
) -> None:
    unverified = flavour.another(settings=DatabaseSettings(verify_commit=False))
    try:

        def body(session: Session) -> None:
            send(session, sql)
            add_item(session)

        posted = await post(unverified, body)
    finally:
        await unverified.dispose()

    assert (posted.reply.status, posted.error) == (200, None)
    assert observer.names() == ["one"]


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    "sql", ["SELECT 1; SELECT 2", "SAVEPOINT here; SELECT 1; ROLLBACK TO here"]
)
async def test_several_statements_of_one_transaction_are_stored(
    flavour: Flavour, observer: Observer, sql: str
) -> None:
    def body(session: Session) -> Any:
        add_item(session)
        send(session, sql)
        add_item(session, "two")
        send(session, INSERT)

    posted = await post(flavour, body)

    assert (posted.error, posted.hooks) == (None, ["on_commit"])
    assert observer.names() == ["one", "two", "by the driver"]


@only(*POSTGRESQL)
async def test_units_that_leave_the_driver_alone_need_no_check(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> bool:
        add_item(session)
        with session.begin_nested():
            session.execute(text("UPDATE item SET name = 'two'"))
        session.scalars(select(Item)).all()
        loan = loan_of(session.connection())
        return loan is not None and loan.was_bypassed

    assert not await flavour.work(body)
