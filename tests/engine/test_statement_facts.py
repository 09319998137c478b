"""What spares most statements a call does the same as what it stands for."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from support.flavours import Flavour
from support.models import Item
from unitwork._driver.driver_connection import in_transaction
from unitwork._sql.session_statements import LONG
from unitwork._sql.statement_facts import StatementFacts, facts_of, known_facts
from unitwork._transaction.connection_state import ConnectionState, known_state

pytestmark = pytest.mark.anyio


def state_in(session: Session) -> ConnectionState:
    connection: Connection = session.connection()
    return known_state(connection)


def probed(state: ConnectionState) -> tuple[bool, bool, bool]:
    """What both probes and `in_transaction()` say."""
    loan = state.loan
    says = state.in_transaction(), loan.in_transaction()
    return bool(says[0]), bool(says[1]), in_transaction(state.driver_connection)


async def test_the_probe_says_what_the_driver_says(flavour: Flavour) -> None:
    found: list[Any] = []

    def work(session: Session) -> None:
        state = state_in(session)
        session.execute(select(Item.name))
        found.extend([state, probed(state)])
        session.commit()
        found.append(probed(state))

    await flavour.work(work)

    state, inside, after = found
    assert len(set(inside)) == len(set(after)) == 1
    assert (after[0], set(probed(state))) == (False, {False})


async def test_and_that_of_an_aborted_transaction(flavour: Flavour) -> None:
    found: list[tuple[bool, bool, bool]] = []

    def fail(session: Session) -> None:
        state = state_in(session)
        with pytest.raises(Exception, match="nonsense"):
            session.execute(text("nonsense"))
        found.append(probed(state))
        session.rollback()

    await flavour.work(fail)

    assert len(set(found[0])) == 1


FACTS = {
    "SELECT 1": StatementFacts(False, False, False, False),
    "select 1": StatementFacts(False, False, False, False),
    "  SELECT 1": StatementFacts(True, False, False, False),
    "INSERT INTO item VALUES ('a;b')": StatementFacts(True, False, False, True),
    "UPDATE item SET name = 'a'": StatementFacts(False, False, False, True),
    "SELECT 1; COMMIT": StatementFacts(True, True, False, False),
    "COMMIT": StatementFacts(True, False, False, False),
    "SET search_path = a": StatementFacts(True, False, True, False),
    "SELECT pg_advisory_lock(1)": StatementFacts(False, False, True, False),
}


@pytest.mark.parametrize("statement", FACTS)
def test_the_facts_of_a_text(statement: str) -> None:
    facts = facts_of("postgresql", statement)

    assert facts == known_facts("postgresql", statement) == FACTS[statement]


def test_whether_a_long_text_writes_is_left_open() -> None:
    facts = facts_of("postgresql", f"SELECT '{'x' * LONG}'")

    assert (facts.writes, facts.may_leave_traces) == (None, True)


@pytest.mark.parametrize(
    ("dialect", "statement", "name"),
    [
        ("postgresql", "SAVEPOINT a$1", "a$1"),
        ("postgresql", "release Savepoint A;", "a"),
        ("postgresql", 'ROLLBACK TO SAVEPOINT "A"', "A"),
        ("postgresql", "ROLLBACK WORK TO /* it */ 1a", "1a"),
        ("sqlite", 'SAVEPOINT "A"', "a"),
        ("sqlite", "ROLLBACK TRANSACTION TO 'A'", "a"),
        ("sqlite", "RELEASE [A b]", "a b"),
        ("mysql", "SAVEPOINT `A`", "a"),
    ],
)
def test_the_names_of_savepoints_are_those_of_the_database(
    dialect: str, statement: str, name: str
) -> None:
    found = facts_of(dialect, statement).savepoints

    assert [each.name for each in found] == [name]


def test_all_savepoints_of_several_statements_are_found() -> None:
    sql = "SAVEPOINT a; SELECT '; RELEASE b'; ROLLBACK TO a; RELEASE SAVEPOINT a"

    found = facts_of("postgresql", sql).savepoints

    assert [each.step.name for each in found] == ["BEGIN", "ROLL_BACK", "RELEASE"]
