"""P4 on MariaDB: one statement may end a transaction, and begin another one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import MARIADB, Flavour, Observer, only
from support.models import Item, add_item
from support.swallowing import post_noting_unit
from unitwork import (
    CommitUnknownError,
    Outcome,
    SessionStateWarning,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio

Body = Callable[[Session], object]


def compound(statements: str) -> str:
    """What a procedure does, without one."""
    return f"BEGIN NOT ATOMIC {statements}; END"


BEGINS_ANOTHER = [
    compound("ROLLBACK; START TRANSACTION"),
    compound("ROLLBACK; INSERT INTO item (name) VALUES ('its')"),
    compound("ROLLBACK AND CHAIN"),
    "EXECUTE IMMEDIATE 'ROLLBACK AND CHAIN'",
    compound("SELECT 1; ROLLBACK"),
    compound("SELECT 1; ROLLBACK; SELECT id FROM item"),
]

TURNS_ON_AUTOCOMMIT = "EXECUTE IMMEDIATE CONCAT('SET auto', 'commit = 1')"


def work(first: str, *, then: Body = lambda session: None) -> Body:
    """Give a body that adds an item, executes *first*, and adds another one."""

    def body(session: Session) -> None:
        add_item(session)
        with suppress(DBAPIError):
            session.execute(text(first))
        with suppress(CommitUnknownError, UnexpectedRollbackError):
            add_item(session, "two")
        then(session)

    return body


def fail(session: Session) -> None:
    raise LookupError


@only(*MARIADB)
@pytest.mark.parametrize("statement", BEGINS_ANOTHER)
async def test_a_transaction_that_a_procedure_has_replaced_is_no_success(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    reply, unit = await post_noting_unit(flavour, work(statement))

    assert isinstance(reply.error, CommitUnknownError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, [])


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement",
    [
        compound("COMMIT; START TRANSACTION"),
        compound("SELECT 1; COMMIT"),
        compound("ROLLBACK; START TRANSACTION; SIGNAL SQLSTATE '45000'"),
    ],
)
@pytest.mark.parametrize("then", [fail, Session.rollback])
async def test_nor_is_it_known_to_be_rolled_back(
    flavour: Flavour, statement: str, then: Body
) -> None:
    _, unit = await post_noting_unit(flavour, work(statement, then=then))

    assert unit.outcome is Outcome.UNKNOWN


@only("asyncmy")
async def test_several_statements_in_one_text_may_replace_it_too(
    flavour: Flavour, observer: Observer
) -> None:
    reply, unit = await post_noting_unit(flavour, work("SELECT 1; ROLLBACK; BEGIN"))

    assert isinstance(reply.error, CommitUnknownError)
    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, [])


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement",
    [compound("SELECT 1"), compound("DO 1"), "ANALYZE SELECT 1", "SHOW TABLES"],
)
async def test_a_procedure_that_ends_nothing_costs_nothing(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with session.begin_nested():
            session.execute(text(statement))
            add_item(session, "two")

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, unit.outcome) == (200, Outcome.COMMITTED)
    assert observer.names() == ["one", "two"]


@only("pymysql")
async def test_all_of_its_results_can_be_read(flavour: Flavour) -> None:
    rows: list[Any] = []

    def body(session: Session) -> None:
        add_item(session)
        cursor: Any = session.execute(text(compound("SELECT 1; SELECT 2"))).cursor
        rows.extend(cursor.fetchall())
        cursor.nextset()
        rows.extend(cursor.fetchall())

    await post_noting_unit(flavour, body)

    assert rows == [(1,), (2,)]


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement", ["LOCK TABLES item WRITE", "ANALYZE TABLE item", "CHECK TABLE item"]
)
@pytest.mark.filterwarnings("ignore::unitwork.SessionStateWarning")
async def test_what_a_statement_commits_is_committed(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    stored: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(stored.append, "one")
        session.execute(text(statement))
        add_item(session, "two")
        raise LookupError

    await post_noting_unit(flavour, body)

    assert observer.names() == stored == ["one"]


@only(*MARIADB)
@pytest.mark.parametrize(("end", "stored"), [("COMMIT", ["one"]), ("ROLLBACK", [])])
async def test_an_end_begins_another_one_by_a_setting_of_the_session(
    flavour: Flavour, observer: Observer, end: str, stored: list[str]
) -> None:
    def body(session: Session) -> None:
        current_unit().on_commit(hooks.append, "one")
        add_item(session)
        with pytest.warns(SessionStateWarning):
            session.execute(text("SET completion_type = CHAIN"))
        session.execute(text(end))
        with suppress(UnexpectedRollbackError):
            add_item(session, "two")
        raise LookupError

    hooks: list[str] = []
    await post_noting_unit(flavour, body)

    assert observer.names() == hooks == stored


@only(*MARIADB)
@pytest.mark.parametrize(
    "statement", ["SET autocommit = (SELECT 1)", TURNS_ON_AUTOCOMMIT]
)
@pytest.mark.filterwarnings("ignore::unitwork.SessionStateWarning")
async def test_autocommit_is_noticed_however_it_was_turned_on(
    flavour: Flavour, observer: Observer, statement: str
) -> None:
    _, unit = await post_noting_unit(flavour, work(statement, then=fail))

    assert (unit.outcome, observer.names()) == (Outcome.UNKNOWN, ["one"])


@only(*MARIADB)
async def test_the_next_unit_does_not_inherit_it(flavour: Flavour) -> None:
    await post_noting_unit(flavour, work(TURNS_ON_AUTOCOMMIT))

    found = await flavour.work(lambda s: s.scalar(text("SELECT @@autocommit")))

    assert found == 0


@only(*MARIADB)
async def test_a_driver_that_commits_each_statement_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    another = flavour.another(connect_args={"autocommit": True})

    reply, _ = await post_noting_unit(another, work("SELECT 1"))
    await another.dispose()

    assert isinstance(reply.error, UsageError)
    assert "leave autocommit=True out of connect_args" in str(reply.error)
    assert observer.names() == []


@only(*MARIADB)
async def test_it_may_be_used_in_autocommit_by_its_name(flavour: Flavour) -> None:
    another = flavour.another(isolation_level="AUTOCOMMIT")

    reply, _ = await post_noting_unit(another, work("CALL nothing()"))
    await another.dispose()

    assert reply.status == 200


@only(*MARIADB)
@pytest.mark.filterwarnings("ignore:Previous unbuffered result")
async def test_a_statement_beside_rows_that_are_streamed_is_a_part_of_it(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        for name in ("one", "two", "three"):
            add_item(session, name)
        rows = session.scalars(select(Item), execution_options={"yield_per": 1})
        assert next(rows).name == "one"
        add_item(session, "four")

    reply, _ = await post_noting_unit(flavour, body)

    assert (reply.status, len(observer.names())) == (200, 4)
