"""P4: however a text or the driver has ended the transaction, that is no success."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from support.driver import INSERT, call_driver, send
from support.flavours import MARIADB, SERVERS, Flavour, Observer, everywhere, only
from support.models import add_item
from support.swallowing import post_noting_unit
from unitwork import (
    CommitUnknownError,
    Outcome,
    SessionStateWarning,
    UnexpectedRollbackError,
    current_unit,
)

pytestmark = pytest.mark.anyio

Body = Callable[[Session], object]

NO_SUCCESS = CommitUnknownError | UnexpectedRollbackError


@only(*SERVERS)
@pytest.mark.parametrize("comment", ["/* why */ ", "-- why\n", "/* a /* b */\n"])
async def test_comments_hide_no_end_that_another_transaction_follows(
    flavour: Flavour, observer: Observer, comment: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(Exception):  # PostgreSQL nests comments: this one has no end
            session.execute(text(f"{comment}ROLLBACK AND CHAIN"))
        add_item(session, "two")

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, Exception)
    assert observer.names() == []


@only(*SERVERS)
async def test_nor_does_a_text_with_columns(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(Exception):
            session.execute(text("ROLLBACK AND CHAIN").columns())
        add_item(session, "two")

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, NO_SUCCESS)
    assert observer.names() == []


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement",
    [
        *("/* why */ ROLLBACK", "# why\nROLLBACK", "/*!ROLLBACK*/"),
        *("EXECUTE IMMEDIATE 'ROLLBACK'", "BEGIN NOT ATOMIC ROLLBACK; END"),
    ],
)
async def test_only_a_text_that_commits_counts_as_a_commit(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text(statement))

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, NO_SUCCESS)
    assert unit.outcome is not Outcome.COMMITTED
    assert observer.names() == []


@only("aiosqlite")
@pytest.mark.parametrize("ends", [["ROLLBACK"], ["COMMIT"], []])
async def test_a_connection_that_was_closed_is_no_success(
    flavour: Flavour, ends: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        for each in ends:
            send(session, each)
        call_driver(session, "close")

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN


def replace(session: Session) -> None:
    send(session, "ROLLBACK")
    send(session, "BEGIN")


def run_script(session: Session) -> None:
    driver: Any = session.connection().connection.driver_connection
    await_only(driver.executescript("BEGIN"))


@only("aiosqlite")
@pytest.mark.parametrize("end", [replace, run_script])
async def test_a_transaction_of_sqlite_that_was_replaced_is_no_success(
    flavour: Flavour, observer: Observer, end: Body
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        end(session)
        send(session, INSERT)

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert "by the driver" not in observer.names()


@everywhere
async def test_a_statement_that_is_refused_makes_no_rollback_of_a_commit(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        with pytest.raises(CommitUnknownError):
            add_item(session, "two")
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@everywhere
async def test_nor_does_a_rollback_that_comes_too_late(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        session.rollback()

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@everywhere
async def test_nor_is_it_a_success_if_nothing_is_open_any_more(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        with pytest.raises(CommitUnknownError):
            session.execute(text("SELECT 1"))
        session.rollback()

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
@pytest.mark.parametrize("begin", ["START TRANSACTION", "/* why */ begin work"])
async def test_a_text_that_begins_commits_what_came_before(
    flavour: Flavour, observer: Observer, begin: str
) -> None:
    stored: list[str] = []

    def body(session: Session) -> None:
        for name in ("one", "two"):
            add_item(session, name)
            current_unit().on_commit(stored.append, name)
            if name == "one":
                session.execute(text(begin))
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is not Outcome.COMMITTED
    assert observer.names() == stored == ["one"]


@only(*MARIADB)
async def test_a_text_that_begins_before_all_else_ends_nothing(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        session.execute(text("START TRANSACTION WITH CONSISTENT SNAPSHOT"))
        add_item(session)
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert (unit.outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


@only(*MARIADB)
@pytest.mark.parametrize("first", [[], ["one"]])
async def test_nothing_is_written_once_a_text_has_turned_autocommit_on(
    flavour: Flavour, observer: Observer, first: list[str]
) -> None:
    def body(session: Session) -> None:
        for name in first:
            add_item(session, name)
        session.execute(text("SET SESSION autocommit = 1"))
        add_item(session, "two")

    with pytest.warns(SessionStateWarning):
        reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, first)
