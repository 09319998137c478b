"""P4: what is lost through the driver, or through SQL text, is no success."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.driver import INSERT, call_driver, send, send_and_swallow
from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, everywhere, only
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

WRONG = "INSERT INTO nowhere (name) VALUES ('x')"
DUPLICATE = "INSERT INTO item (name) VALUES ('one')"


# Errors that the driver has had


def fail_in_the_driver(session: Session) -> None:
    add_item(session)
    send_and_swallow(session, WRONG)


def fail_in_the_driver_last_of_all(session: Session) -> None:
    add_item(session)
    send_and_swallow(session, DUPLICATE)


def fail_in_the_driver_before_a_savepoint(session: Session) -> None:
    add_item(session)
    send_and_swallow(session, WRONG)
    with pytest.raises(Exception, match="aborted"), session.begin_nested():
        session.execute(text("SELECT 1"))


def fail_in_the_driver_inside_a_savepoint(session: Session) -> None:
    add_item(session)
    savepoint = session.begin_nested()
    session.execute(text("SELECT 1"))
    send_and_swallow(session, WRONG)
    with pytest.raises(Exception, match="aborted"):
        savepoint.commit()


FAILING = [
    fail_in_the_driver,
    fail_in_the_driver_last_of_all,
    fail_in_the_driver_before_a_savepoint,
    fail_in_the_driver_inside_a_savepoint,
]


@only(*POSTGRESQL)
@pytest.mark.parametrize("body", FAILING)
async def test_an_error_of_the_driver_that_was_swallowed_is_no_success(
    flavour: Flavour, observer: Observer, body: Body
) -> None:
    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert unit.outcome is Outcome.ROLLED_BACK
    assert observer.names() == []


@only(*POSTGRESQL)
@pytest.mark.parametrize("body", FAILING[:-1])  # after which SQLAlchemy refuses it
async def test_nor_is_a_commit_of_the_application(
    flavour: Flavour, observer: Observer, body: Body
) -> None:
    def commit(session: Session) -> None:
        body(session)
        session.commit()

    reply, _ = await post_noting_unit(flavour, commit)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@only(*MARIADB)
async def test_an_error_that_has_cost_nothing_is_no_obstacle(
    flavour: Flavour, observer: Observer
) -> None:
    reply, _ = await post_noting_unit(flavour, fail_in_the_driver)

    assert reply.status == 200
    assert observer.names() == ["one"]


# Writes through the driver are a part of the transaction


@everywhere
async def test_what_the_driver_writes_is_stored(
    flavour: Flavour, observer: Observer
) -> None:
    reply, _ = await post_noting_unit(flavour, lambda session: send(session, INSERT))

    assert reply.status == 200
    assert observer.names() == ["by the driver"]


@everywhere
async def test_what_the_driver_writes_is_rolled_back(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        send(session, INSERT)
        raise LookupError

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, LookupError)
    assert observer.names() == []


# Transactions that something else has ended


def by_text(session: Session, verb: str) -> None:
    session.execute(text(verb))


@everywhere
@pytest.mark.parametrize("how", [by_text, send])
async def test_a_rollback_past_the_session_is_no_success(
    flavour: Flavour, observer: Observer, how: Callable[[Session, str], None]
) -> None:
    reply, _ = await post_noting_unit(
        flavour, partial(add_and_end, how=how, verb="ROLLBACK")
    )

    assert isinstance(reply.error, UnexpectedRollbackError | CommitUnknownError)
    assert "ROLLBACK" in str(reply.error)
    assert observer.names() == []


@everywhere
@pytest.mark.parametrize("how", [by_text, send])
async def test_nor_are_statements_after_it(
    flavour: Flavour, observer: Observer, how: Callable[[Session, str], None]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        how(session, "ROLLBACK")
        add_item(session, "two")

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError | CommitUnknownError)
    assert observer.names() == []


@everywhere
async def test_nor_is_what_the_driver_writes_after_it(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "ROLLBACK")
        send(session, INSERT)

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError | CommitUnknownError)


@only(*POSTGRESQL)
@pytest.mark.parametrize("verb", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_that_another_one_follows_is_no_success(
    flavour: Flavour, observer: Observer, verb: str
) -> None:
    def body(session: Session) -> None:
        add_and_end(session, by_text, f"{verb} AND CHAIN")
        add_item(session, "two")

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError | UnexpectedRollbackError)


@only(*POSTGRESQL)
async def test_what_the_driver_writes_after_a_commit_makes_the_outcome_unknown(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        send(session, INSERT)

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert observer.names()[0] == "one"


@only(*MARIADB)
@pytest.mark.parametrize("method", ["rollback", "commit", "begin"])
async def test_nor_is_what_follows_a_call_of_the_driver(
    flavour: Flavour, observer: Observer, method: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        call_driver(session, method)
        send(session, INSERT)

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert "by the driver" not in observer.names()


@only(*MARIADB)
async def test_a_failure_after_it_is_no_rollback(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        send(session, INSERT)
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@only(*MARIADB)
async def test_a_statement_that_commits_is_no_obstacle(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        session.execute(text("CREATE OR REPLACE TABLE made (id int)"))
        add_item(session, "two")

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, unit.outcome) == (200, Outcome.COMMITTED)
    assert observer.names() == ["one", "two"]


@only(*MARIADB)
async def test_a_statement_that_commits_runs_the_hooks_of_what_it_commits(
    flavour: Flavour, observer: Observer
) -> None:
    stored: list[str] = []

    def body(session: Session) -> None:
        for name in ("one", "two"):
            add_item(session, name)
            current_unit().on_commit(stored.append, name)
            if name == "one":
                session.execute(text("CREATE TABLE IF NOT EXISTS item (id int)"))
        raise LookupError

    await post_noting_unit(flavour, body)

    assert observer.names() == stored == ["one"]


@only(*POSTGRESQL)
@pytest.mark.parametrize("how", [by_text, send])
async def test_a_commit_past_the_session_is_verified(
    flavour: Flavour, observer: Observer, how: Callable[[Session, str], None]
) -> None:
    reply, unit = await post_noting_unit(
        flavour, partial(add_and_end, how=how, verb="COMMIT")
    )

    assert (reply.status, unit.outcome) == (200, Outcome.COMMITTED)
    assert observer.names() == ["one"]


@only("sqlite3", "aiosqlite", *MARIADB)
async def test_or_unknown(flavour: Flavour, observer: Observer) -> None:
    reply, unit = await post_noting_unit(
        flavour, partial(add_and_end, how=send, verb="COMMIT")
    )

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


def add_and_end(
    session: Session, how: Callable[[Session, str], None], verb: str
) -> None:
    add_item(session)
    how(session, verb)


@everywhere
async def test_a_failure_after_a_commit_past_the_session_is_no_rollback(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        send(session, "COMMIT")
        raise LookupError

    _, unit = await post_noting_unit(flavour, body)

    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]
