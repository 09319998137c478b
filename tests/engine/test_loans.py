"""What is known of a connection's last use does not apply to the next one."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.flavours import POSTGRESQL, Flavour, only
from unitwork._engine.pool_events import loans_of
from unitwork._transaction.loan import Loan
from unitwork._transaction.transaction_state import TransactionState

pytestmark = pytest.mark.anyio

OF_THE_CONNECTION = {"driver_connection", "counter", "in_transaction", "messages"}
"""What a loan has of its connection, from the beginning."""


def known(loan: Loan) -> dict[str, object]:
    names = set(Loan.__slots__) - OF_THE_CONNECTION
    return {name: getattr(loan, name) for name in names}


def write(session: Session) -> None:
    session.execute(text("CREATE TEMPORARY TABLE notes (n int) ON COMMIT DROP"))


@only(*POSTGRESQL)
async def test_nothing_is_known_of_a_connection_that_was_returned(
    flavour: Flavour,
) -> None:
    await flavour.work(write)

    (loan,) = loans_of(flavour.sync_engine)

    assert loan.is_unused
    assert known(loan) == known(Loan(None))


@only(*POSTGRESQL)
async def test_the_next_unit_goes_on_with_that_loan(flavour: Flavour) -> None:
    await flavour.work(write)
    (loan,) = loans_of(flavour.sync_engine)

    await flavour.work(write)

    assert loan.hold is not None


OTHERWISE: dict[str, object] = {
    "bypassed_by": 1,
    "begun_with_id": True,
    "client_side_read_only": True,
    "end_timeout": 1.5,
    "failure": LookupError(),
    "driver_calls": object(),
    "first_setting": "SET LOCAL x = 1",
    "guard_is_older": True,
    "has_failed_late": True,
    "has_guard": True,
    "has_stored": True,
    "hold": object(),
    "holder": object(),
    "mark": object(),
    "may_be_another": True,
    "messages": -1,
    "only_reads": False,
    "proxy": object(),
    "read_only": True,
    "savepoints": object(),
    "server_side_cursor": object(),
    "state": TransactionState.COMMITTED,
    "statement_prefix": "SET LOCAL x = 1",
    "statements_in_flight": 1,
    "texts": {"SELECT 1": None},
    "undecided": object(),
    "wants_position": True,
    "wrote": True,
    "xid": "a",
}


def test_a_loan_with_anything_known_of_it_is_no_unused_one() -> None:
    # SQLite's counter is another one for each loan, which is made anew there.
    assert {*OTHERWISE, *OF_THE_CONNECTION, "changes_before"} == {*Loan.__slots__}
    for name, value in OTHERWISE.items():
        loan = Loan(None)
        assert loan.is_unused
        setattr(loan, name, value)
        assert not loan.is_unused, name


@pytest.mark.parametrize(
    ("name", "value"),
    [("failure", LookupError()), ("texts", {"SELECT 1": None}), ("bypassed_by", 1)],
)
@only(*POSTGRESQL)
async def test_a_unit_gets_a_loan_of_its_own_if_that_was_used(
    flavour: Flavour, name: str, value: object
) -> None:
    await flavour.work(write)
    (loan,) = loans_of(flavour.sync_engine)
    setattr(loan, name, value)

    await flavour.work(write)

    assert loan.hold is None
