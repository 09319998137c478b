"""The plans of a unit without a database: it is ended, closed and returned."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from support.play import Play
from unitwork import CommitUnknownError, Outcome, UnexpectedRollbackError, UnitOfWork
from unitwork._drive import Plan, run
from unitwork._ends import conclude, end_message

pytestmark = pytest.mark.anyio

FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


class StubSource:
    name = "stub"

    def __init__(self, play: Play) -> None:
        self.play = play

    def lease(self, unit: UnitOfWork) -> Any:
        return self.play.lease("a")

    def returned(self, unit: UnitOfWork) -> None:
        self.play.steps.append("returned")


@pytest.fixture
def unit(play: Play) -> UnitOfWork:
    """A unit with one open session and a hook of each kind."""
    source: Any = StubSource(play)
    unit = UnitOfWork({"db": source})
    unit._lease(source)
    for kind in ("before_commit", "on_commit", "on_rollback"):
        getattr(unit, kind)(play.steps.append, kind)
    return unit


COMMITTED = ["before_commit", "commit a", "on_commit"]
CLOSED = ["close a: committed", "returned"]
ROLLED_BACK = ["rollback a", "on_rollback"]
DROPPED = ["close a: rolled back", "returned"]


def test_a_block_that_ends_well_commits_and_closes(
    play: Play, unit: UnitOfWork
) -> None:
    assert play.run(conclude(unit, None)) is None
    assert play.steps == COMMITTED + CLOSED
    assert (unit.outcome, unit.reason) == (Outcome.COMMITTED, "the block ended")


def test_a_block_that_raised_rolls_back_and_closes(
    play: Play, unit: UnitOfWork
) -> None:
    assert play.run(conclude(unit, LookupError())) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.outcome is Outcome.ROLLED_BACK
    assert unit.reason == "LookupError was raised"


def test_a_doomed_block_rolls_back_and_closes(play: Play, unit: UnitOfWork) -> None:
    unit.rollback_only("dry run")

    assert play.run(conclude(unit, None)) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.reason == "dry run"


def test_a_block_with_a_swallowed_error_rolls_back_closes_and_says_so(
    play: Play, unit: UnitOfWork
) -> None:
    swallowed = LookupError()
    unit._swallowed(swallowed)
    unit._swallowed(OSError("the first one counts"))

    error = play.run(conclude(unit, None))

    assert isinstance(error, UnexpectedRollbackError)
    assert error.__cause__ is swallowed
    assert play.steps == ROLLED_BACK + DROPPED


def test_an_error_that_a_hook_swallowed_counts_too(
    play: Play, unit: UnitOfWork
) -> None:
    swallowed = LookupError()
    unit.before_commit(unit._swallowed, swallowed)
    unit.before_commit(play.steps.append, "next")
    plan = conclude(unit, None)
    for _ in range(2):
        next(plan).call()

    error = play.run(plan)

    assert isinstance(error, UnexpectedRollbackError)
    assert error.__cause__ is swallowed
    assert unit.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("step", [0, 1])
def test_a_block_whose_commit_fails_is_closed_all_the_same(
    play: Play, unit: UnitOfWork, step: int, kind: type[BaseException]
) -> None:
    error = kind("x")

    assert play.run(conclude(unit, None), step, error) is error
    failed = f"{COMMITTED[step]} fails"
    assert play.steps == [*COMMITTED[:step], failed, *ROLLED_BACK, *DROPPED]
    assert unit.outcome is Outcome.ROLLED_BACK
    assert unit.reason == f"COMMIT failed: {kind.__name__}"


def test_a_block_whose_commit_is_lost_is_closed_and_unknown(
    play: Play, unit: UnitOfWork
) -> None:
    error = ConnectionError("lost")

    unknown = play.run(conclude(unit, None), 1, error)

    assert isinstance(unknown, CommitUnknownError)
    assert play.steps[1:] == ["commit a fails", "rollback a", *UNKNOWN]
    assert unit.outcome is Outcome.UNKNOWN


UNKNOWN = ["close a: unknown", "returned"]


def test_a_block_that_is_told_to_exit_in_a_hook_was_committed_and_is_closed(
    play: Play, unit: UnitOfWork
) -> None:
    error = SystemExit()

    assert play.run(conclude(unit, None), 2, error) is error
    assert play.steps == [*COMMITTED[:2], "on_commit fails", *CLOSED]
    assert unit.outcome is Outcome.COMMITTED


@pytest.mark.parametrize("kind", FAILURES)
def test_a_block_that_can_not_be_rolled_back_is_closed_all_the_same(
    play: Play, unit: UnitOfWork, kind: type[BaseException]
) -> None:
    play.run(conclude(unit, LookupError()), 0, kind("x"))

    assert play.steps[0] == "rollback a fails"
    assert play.steps[-2:] == DROPPED
    assert unit.outcome is Outcome.ROLLED_BACK


def test_hooks_already_see_the_outcome(play: Play, unit: UnitOfWork) -> None:
    seen: list[object] = []
    unit.before_commit(lambda: seen.append(unit.outcome))
    unit.on_commit(lambda: seen.append(unit.outcome))

    run(without_sessions(conclude(unit, None)))

    assert seen == [None, Outcome.COMMITTED]


def without_sessions(plan: Plan[None]) -> Plan[None]:
    """Pass the hooks of *plan* on, and take the rest as done."""
    with suppress(StopIteration):
        step = next(plan)
        while True:
            if step.lease is None:
                yield step
            step = plan.send(None)


@pytest.mark.parametrize("error", [None, LookupError()])
def test_a_message_is_ended_but_its_unit_is_not(
    play: Play, unit: UnitOfWork, error: Exception | None
) -> None:
    assert play.run(end_message(unit, error)) is None
    assert play.steps == (ROLLED_BACK if error else COMMITTED)

    play.steps.clear()
    play.leases[0].open = True
    unit.on_commit(play.steps.append, "next")
    assert play.run(end_message(unit, None)) is None
    assert play.steps == ["commit a", "next"]
    assert play.leases[0].ended is None


@pytest.mark.parametrize("doom", ["rollback_only", "_swallowed"])
def test_what_dooms_one_message_leaves_the_next_alone(
    play: Play, unit: UnitOfWork, doom: str
) -> None:
    getattr(unit, doom)(LookupError())
    play.run(end_message(unit, None))
    assert play.steps == ROLLED_BACK

    play.steps.clear()
    play.leases[0].open = True
    assert play.run(end_message(unit, None)) is None
    assert (play.steps, unit.outcome) == (["commit a"], Outcome.COMMITTED)
