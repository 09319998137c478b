"""The states of a unit: which may follow which."""

from __future__ import annotations

from itertools import product

import pytest

from unitwork._unit.decision import UNDECIDED, Decision, Intent
from unitwork._unit.lifecycle import Lifecycle
from unitwork._unit.state import IllegalMove, UnitState

OPEN, ENDING, COMMITTING, ROLLING_BACK, SETTLED, CLOSED = UnitState
LEGAL = {
    (OPEN, ENDING),
    (OPEN, CLOSED),
    (ENDING, COMMITTING),
    (ENDING, ROLLING_BACK),
    (ENDING, SETTLED),
    (COMMITTING, ROLLING_BACK),
    (COMMITTING, SETTLED),
    (ROLLING_BACK, SETTLED),
    (SETTLED, OPEN),
    (SETTLED, CLOSED),
}
PAIRS = list(product(UnitState, repeat=2))


def unit_in(state: UnitState) -> Lifecycle:
    unit = Lifecycle()
    unit.state = state
    return unit


@pytest.mark.parametrize(("old", "new"), sorted(LEGAL, key=str))
def test_a_unit_moves_on(old: UnitState, new: UnitState) -> None:
    unit_in(old).move(new)
    unit = unit_in(old)
    unit.move(new)
    assert unit.state is new


@pytest.mark.parametrize(("old", "new"), [p for p in PAIRS if p not in LEGAL])
def test_a_unit_makes_no_other_move(old: UnitState, new: UnitState) -> None:
    unit = unit_in(old)

    with pytest.raises(IllegalMove, match=f"{old.label} can't be {new.label}"):
        unit.move(new)

    assert unit.state is old


@pytest.mark.parametrize("state", UnitState)
def test_only_an_open_unit_begins_to_end(state: UnitState) -> None:
    unit = unit_in(state)

    assert unit.begin_ending() is (state is OPEN)
    assert unit.state is (ENDING if state is OPEN else state)


@pytest.mark.parametrize("state", [OPEN, ROLLING_BACK, SETTLED, CLOSED])
def test_only_an_ending_unit_begins_to_commit(state: UnitState) -> None:
    with pytest.raises(IllegalMove):
        unit_in(state).begin_commit()


@pytest.mark.parametrize("intent", Intent)
def test_commit_begins_unless_the_intent_forbids_it(intent: Intent) -> None:
    unit = unit_in(ENDING)
    unit.decision = Decision(intent)

    assert unit.begin_commit() is (intent < Intent.ROLLBACK_ONLY)
    assert unit.state is (COMMITTING if intent < Intent.ROLLBACK_ONLY else ENDING)


def test_the_commit_of_several_sessions_begins_once() -> None:
    unit = unit_in(ENDING)
    assert unit.begin_commit()
    unit.request_rollback("too late")

    assert unit.begin_commit()


@pytest.mark.parametrize("state", UnitState)
def test_a_turn_comes_at_once_where_no_ending_is_under_way(state: UnitState) -> None:
    assert unit_in(state).next_turn().done() is (state in (OPEN, CLOSED))


@pytest.mark.parametrize("state", [OPEN, CLOSED])
def test_the_end_of_an_ending_wakes_all_that_wait(state: UnitState) -> None:
    unit = unit_in(SETTLED)
    first, cancelled, last = (unit.next_turn() for _ in range(3))
    cancelled.cancel()

    assert unit.end_turn(state)

    assert (first.done(), last.done()) == (True, True)


def test_the_turn_of_a_closed_unit_ends_no_more() -> None:
    assert not unit_in(CLOSED).end_turn(OPEN)


@pytest.mark.parametrize(("old", "new"), list(product(Intent, repeat=2)))
def test_the_intent_only_rises(old: Intent, new: Intent) -> None:
    before = Decision(old, "old")

    after = before.raised(new, "new")

    assert after == (Decision(new, "new") if new > old else before)


def test_the_first_error_that_was_swallowed_is_kept() -> None:
    unit, first = Lifecycle(), LookupError()
    unit.lose(first)
    unit.lose(OSError())

    assert unit.decision.failure is first
    assert unit.unexpected().__cause__ is first


def test_another_round_decides_for_itself() -> None:
    unit = Lifecycle()
    unit.request_rollback("once")
    unit.lose(LookupError())

    unit.forget_decision()

    assert unit.decision is UNDECIDED
