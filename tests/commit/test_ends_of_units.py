"""The endings of a unit without a database: it is ended, closed and returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from support.play import Play
from support.played_units import (
    CLOSED,
    COMMITTED,
    DROPPED,
    ROLLED_BACK,
    UNKNOWN,
    call_hook,
)
from unitwork import CommitUnknownError, Outcome, UnexpectedRollbackError, UnitOfWork
from unitwork._execution.plan import Plan, Step
from unitwork._execution.sync_runner import run
from unitwork._unit.endings import (
    end_block,
)
from unitwork._unit.state import UnitState
from unitwork._unit.unit import Unit

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("facade")]

FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


# Blocks


def test_a_block_that_ends_well_commits_and_closes(play: Play, unit: Unit) -> None:
    assert play.run(end_block(unit, None)) is None
    assert play.steps == COMMITTED + CLOSED
    assert (unit.outcome, unit.reason) == (Outcome.COMMITTED, "the block ended")
    assert unit.state is UnitState.CLOSED


def test_a_block_that_raised_rolls_back_and_closes(play: Play, unit: Unit) -> None:
    assert play.run(end_block(unit, LookupError())) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.outcome is Outcome.ROLLED_BACK
    assert unit.reason == "LookupError was raised"


def test_a_block_that_asked_for_a_rollback_is_rolled_back_and_closed(
    play: Play, unit: Unit, facade: UnitOfWork
) -> None:
    facade.rollback_only("dry run")

    assert play.run(end_block(unit, None)) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.reason == "dry run"


def test_a_block_with_a_swallowed_error_rolls_back_closes_and_says_so(
    play: Play, unit: Unit
) -> None:
    swallowed = LookupError()
    unit.lose(swallowed)
    unit.lose(OSError("the first one counts"))

    error = play.run(end_block(unit, None))

    assert isinstance(error, UnexpectedRollbackError)
    assert error.__cause__ is swallowed
    assert play.steps == ROLLED_BACK + DROPPED


def test_an_error_that_a_hook_swallowed_counts_too(
    play: Play, unit: Unit, facade: UnitOfWork
) -> None:
    swallowed = LookupError()
    facade.before_commit(unit.lose, swallowed)
    facade.before_commit(play.steps.append, "next")
    plan = end_block(unit, None)
    for _ in range(2):
        call_hook(next(plan))

    error = play.run(plan)

    assert isinstance(error, UnexpectedRollbackError)
    assert error.__cause__ is swallowed
    assert unit.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("kind", FAILURES)
def test_a_block_whose_hook_fails_is_closed_all_the_same(
    play: Play, unit: Unit, kind: type[BaseException]
) -> None:
    error = kind("x")

    assert play.run(end_block(unit, None), 0, error) is error
    assert play.steps == ["before_commit fails", *ROLLED_BACK, *DROPPED]
    assert unit.outcome is Outcome.ROLLED_BACK
    assert unit.reason == f"COMMIT failed: {kind.__name__}"


def test_a_block_whose_commit_fails_is_closed_all_the_same(
    play: Play, unit: Unit
) -> None:
    error = LookupError("x")

    assert play.run(end_block(unit, None), 1, error) is error
    assert play.steps[1:] == ["commit a fails", *ROLLED_BACK, *DROPPED]
    assert unit.outcome is Outcome.ROLLED_BACK
    assert unit.reason == "COMMIT failed: LookupError"


@pytest.mark.parametrize("kind", FAILURES[1:])
def test_a_block_whose_commit_is_interrupted_is_closed_and_unknown(
    play: Play, unit: Unit, kind: type[BaseException]
) -> None:
    error = kind("x")

    assert play.run(end_block(unit, None), 1, error) is error
    assert play.steps[1:] == ["commit a fails", "rollback a", *UNKNOWN]
    assert unit.outcome is Outcome.UNKNOWN
    assert unit.reason == f"COMMIT failed: {kind.__name__}"


def test_a_block_whose_commit_is_lost_is_closed_and_unknown(
    play: Play, unit: Unit
) -> None:
    error = ConnectionError("lost")

    unknown = play.run(end_block(unit, None), 1, error)

    assert isinstance(unknown, CommitUnknownError)
    assert play.steps[1:] == ["commit a fails", "rollback a", *UNKNOWN]
    assert unit.outcome is Outcome.UNKNOWN


def test_a_block_that_is_told_to_exit_in_a_hook_was_committed_and_is_closed(
    play: Play, unit: Unit
) -> None:
    error = SystemExit()

    assert play.run(end_block(unit, None), 2, error) is error
    assert play.steps == [*COMMITTED[:2], "on_commit fails", *CLOSED]
    assert unit.outcome is Outcome.COMMITTED


@pytest.mark.parametrize("kind", FAILURES)
def test_a_block_that_can_not_be_rolled_back_is_closed_all_the_same(
    play: Play, unit: Unit, kind: type[BaseException]
) -> None:
    play.run(end_block(unit, LookupError()), 0, kind("x"))

    assert play.steps[0] == "rollback a fails"
    assert play.steps[-2:] == DROPPED
    assert unit.outcome is Outcome.ROLLED_BACK


def test_hooks_already_see_the_outcome(unit: Unit, facade: UnitOfWork) -> None:
    seen: list[object] = []
    facade.before_commit(lambda: seen.append(facade.outcome))
    facade.on_commit(lambda: seen.append(facade.outcome))

    run(without_sessions(end_block(unit, None)))

    assert seen == [None, Outcome.COMMITTED]


def without_sessions(plan: Plan[None]) -> Plan[None]:
    """Pass the hooks of *plan* on, and make the rest at once."""
    result: Any = None
    with suppress(StopIteration):
        while True:
            step = plan.send(result)
            if isinstance(step, Step):
                result = step.call(step.session.sync_session)
            else:
                result = yield step


# What the flush of COMMIT does


def flush_does(play: Play, act: Callable[[], object]) -> None:
    play.sessions[0].play_session.on_flush = act


def test_a_hook_that_the_flush_registers_is_called_before_commit(
    play: Play, unit: Unit, facade: UnitOfWork
) -> None:
    flush_does(play, lambda: facade.before_commit(play.steps.append, "late"))

    assert play.run(end_block(unit, None)) is None

    sent = ["late", "commit a", "on_commit"]
    assert play.steps == ["before_commit", "commit a is not sent", *sent, *CLOSED]
    assert unit.outcome is Outcome.COMMITTED


def test_a_rollback_that_the_flush_asks_for_is_obeyed(
    play: Play, unit: Unit, facade: UnitOfWork
) -> None:
    flush_does(play, lambda: facade.rollback_only("not this"))

    assert play.run(end_block(unit, None)) is None

    tried = ["before_commit", "commit a is not sent"]
    assert play.steps == tried + ROLLED_BACK + DROPPED
    assert (unit.outcome, unit.reason) == (Outcome.ROLLED_BACK, "not this")


def test_an_error_that_the_flush_swallows_rolls_back_and_is_raised(
    play: Play, unit: Unit
) -> None:
    swallowed = LookupError()
    flush_does(play, lambda: unit.lose(swallowed))

    error = play.run(end_block(unit, None))

    assert isinstance(error, UnexpectedRollbackError)
    assert error.__cause__ is swallowed
    assert "commit a" not in play.steps
