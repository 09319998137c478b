"""P4 on MariaDB: what is known only after a statement, or after ROLLBACK."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import MARIADB, Flavour, Observer, connect_mariadb, only
from support.models import add_item
from support.swallowing import post_noting_unit
from unitwork import (
    CommitUnknownError,
    Outcome,
    UnexpectedRollbackError,
    current_unit,
)

pytestmark = pytest.mark.anyio

Body = Callable[[Session], object]

FAILS = "SELECT 1; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no money'"
COMMITS = "INSERT INTO item (name) VALUES ('its'); COMMIT"


def run(session: Session, statements: str) -> None:
    """Execute what a procedure does, without one, and fetch the rows it returns."""
    result = session.execute(text(f"BEGIN NOT ATOMIC {statements}; END"))
    result.close()


def fail_late(session: Session) -> None:
    run(session, FAILS)


def fail_late_in_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        run(session, FAILS)


# An error behind the rows that a procedure returns: SQLAlchemy drops it


@only(*MARIADB)
@pytest.mark.parametrize("fail", [fail_late, fail_late_in_a_savepoint])
@pytest.mark.parametrize("first", [[], ["one"]])
async def test_a_procedure_that_fails_after_it_has_returned_rows_is_no_success(
    flavour: Flavour, observer: Observer, fail: Body, first: list[str]
) -> None:
    def body(session: Session) -> None:
        for name in first:
            add_item(session, name)
        fail(session)
        add_item(session, "two")

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert "no money" in str(reply.error.__cause__)
    assert (unit.outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


@only("asyncmy")
async def test_nor_is_a_text_whose_second_statement_fails(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        insert = "INSERT INTO item (name) VALUES ('one')"
        session.execute(text(f"{insert}; {insert}"))

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@only(*MARIADB)
async def test_a_savepoint_undoes_such_an_error(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(LookupError), session.begin_nested():
            run(session, FAILS)
            raise LookupError

    reply, _ = await post_noting_unit(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*MARIADB)
async def test_a_rollback_by_hand_does_so_too(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        run(session, FAILS)
        session.rollback()
        add_item(session)

    reply, _ = await post_noting_unit(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@only(*MARIADB)
async def test_it_is_unknown_if_the_procedure_had_committed(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        run(session, f"SELECT 1; COMMIT; {FAILS}")

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, ["one"])


# An end inside a statement that fails, or whose results are not read


def leave_unread(session: Session, statements: str) -> None:
    session.execute(text(f"BEGIN NOT ATOMIC {statements}; END"))


@only(*MARIADB)
async def test_a_rollback_in_a_savepoint_behind_unread_rows_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(DBAPIError), session.begin_nested():
            leave_unread(session, "SELECT 1; ROLLBACK; SIGNAL SQLSTATE '45000'")
        add_item(session, "two")

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, [])


@only(*MARIADB)
@pytest.mark.parametrize(
    ("statements", "stored"),
    [
        ("COMMIT AND CHAIN; SELECT 1; SIGNAL SQLSTATE '45000'", ["one"]),
        ("COMMIT; SIGNAL SQLSTATE '45000'", ["one"]),
        ("COMMIT; SELECT * FROM nothing", ["one"]),
        ("ROLLBACK; SIGNAL SQLSTATE '45000'", []),
    ],
)
async def test_a_procedure_that_fails_may_have_committed_before(
    flavour: Flavour, observer: Observer, statements: str, stored: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        leave_unread(session, statements)
        raise LookupError

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, DBAPIError | LookupError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, stored)


# A COMMIT inside the first statement

with_more = pytest.mark.parametrize(
    "more", ["", "; SIGNAL SQLSTATE '45000'", "; SELECT 1", "; SELECT 1; SELECT 2"]
)


def commit_inside(session: Session, more: str) -> None:
    with suppress(DBAPIError):
        run(session, COMMITS + more)


@only(*MARIADB)
@with_more
async def test_what_a_procedure_has_committed_is_not_rolled_back(
    flavour: Flavour, observer: Observer, more: str
) -> None:
    def body(session: Session) -> None:
        commit_inside(session, more)
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, ["its"])


@only(*MARIADB)
@with_more
async def test_if_it_comes_first_it_takes_nothing_along(
    flavour: Flavour, observer: Observer, more: str
) -> None:
    def body(session: Session) -> None:
        commit_inside(session, more)
        add_item(session)

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, unit.outcome) == (200, Outcome.COMMITTED)
    assert observer.names() == ["its", "one"]


# Tables without transactions


@pytest.fixture
def plain_table(flavour: Flavour) -> Iterator[str]:
    with connect_mariadb(make_url(flavour.url)) as other:
        other.query("CREATE OR REPLACE TABLE plain (id int) ENGINE = MyISAM")
        yield "plain"
        other.query("DROP TABLE plain")


@only(*MARIADB)
async def test_what_mariadb_can_not_roll_back_is_not_reported_as_rolled_back(
    flavour: Flavour,
    observer: Observer,
    plain_table: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks: list[str] = []

    def body(session: Session) -> None:
        current_unit().on_rollback(hooks.append, "rolled back")
        session.execute(text(f"INSERT INTO {plain_table} VALUES (1)"))
        add_item(session)
        raise LookupError

    with caplog.at_level(logging.WARNING, "unitwork"):
        _, unit = await post_noting_unit(flavour, body)

    assert (unit.outcome, hooks, observer.names()) == (Outcome.UNKNOWN, [], [])
    assert "has not undone everything" in caplog.text


@only(*MARIADB)
async def test_the_next_unit_of_its_connection_is(
    flavour: Flavour, plain_table: str
) -> None:
    def fail(session: Session) -> None:
        add_item(session)
        raise LookupError

    def body(session: Session) -> None:
        session.execute(text(f"INSERT INTO {plain_table} VALUES (1)"))
        raise LookupError

    await post_noting_unit(flavour, body)
    _, unit = await post_noting_unit(flavour, fail)

    assert unit.outcome is Outcome.ROLLED_BACK
