"""The endings of a unit without a database: it is ended, closed and returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from support.play import Play, PlayUnitSession
from unitwork import CommitUnknownError, Outcome, UnexpectedRollbackError, UnitOfWork
from unitwork._execution.plan import Plan, Step, Wait
from unitwork._execution.sync_runner import run
from unitwork._unit.endings import (
    abandon,
    end_and_close,
    end_before_body,
    end_block,
    end_message,
    raised,
    roll_back,
    shut_down,
)
from unitwork._unit.owner import UnitOwner
from unitwork._unit.state import UnitState
from unitwork._unit.unit import Unit
from unitwork._unit.unit_of_work import facade_of
from unitwork.outcome import Verdict

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("facade")]

FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


class PlayDatabase:
    name = "a"

    def __init__(self, play: Play) -> None:
        self.play = play

    def open_session(self, owner: Unit) -> PlayUnitSession:
        return self.play.session(self.name, owner)

    def session_closed(self, owner: Unit) -> None:
        self.play.steps.append("returned")


@pytest.fixture
def unit(play: Play) -> Unit:
    """A unit with one open session."""
    database: Any = PlayDatabase(play)
    unit = Unit({"db": database}, UnitOwner())
    unit.session_of(database)
    return unit


@pytest.fixture
def facade(play: Play, unit: Unit) -> UnitOfWork:
    """What the application sees of it; with a hook of each kind."""
    facade = facade_of(unit)
    for kind in ("before_commit", "on_commit", "on_rollback"):
        getattr(facade, kind)(play.steps.append, kind)
    return facade


COMMITTED = ["before_commit", "commit a", "on_commit"]
CLOSED = ["close a: committed", "returned"]
ROLLED_BACK = ["rollback a", "on_rollback"]
DROPPED = ["close a: rolled back", "returned"]
UNKNOWN = ["close a: unknown", "returned"]


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


def call_hook(step: Any) -> None:
    assert step.session is None
    step.call()


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
            assert isinstance(step, Step)
            if step.session is None:
                result = yield step
            else:
                result = step.call(step.session.sync_session)


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


# Messages of a WebSocket


def handle_message(unit: Unit, error: Exception | None = None) -> Plan[None]:
    reason = "the message was handled" if error is None else raised(error)
    return end_message(unit, lambda: Verdict(error is None, reason))


@pytest.mark.parametrize("error", [None, LookupError()])
def test_a_message_is_ended_but_its_unit_is_not(
    play: Play, unit: Unit, facade: UnitOfWork, error: Exception | None
) -> None:
    assert play.run(handle_message(unit, error)) is None
    assert play.steps == (ROLLED_BACK if error else COMMITTED)

    play.steps.clear()
    play.sessions[0].check()
    play.sessions[0].play_session.begin()
    facade.on_commit(play.steps.append, "next")
    assert play.run(handle_message(unit)) is None
    assert play.steps == ["commit a", "next"]
    assert unit.state is UnitState.OPEN


@pytest.mark.parametrize("lost", [True, False])
def test_what_rolls_one_message_back_leaves_the_next_alone(
    play: Play, unit: Unit, facade: UnitOfWork, lost: bool
) -> None:
    if lost:
        unit.lose(LookupError())
    else:
        facade.rollback_only()
    error = play.run(handle_message(unit))
    assert isinstance(error, UnexpectedRollbackError) is lost
    assert play.steps == ROLLED_BACK

    play.steps.clear()
    play.sessions[0].play_session.begin()
    assert play.run(handle_message(unit)) is None
    assert (play.steps, unit.outcome) == (["commit a"], Outcome.COMMITTED)


# Responses


def test_the_body_of_a_response_may_begin_more(play: Play, unit: Unit) -> None:
    verdict = Verdict(True, "status 200")
    assert play.run(end_before_body(unit, verdict, error_response=False)) is None
    assert play.steps == COMMITTED

    play.steps.clear()
    play.sessions[0].check()
    play.sessions[0].play_session.begin()
    assert play.run(end_and_close(unit, lambda: verdict)) is None
    assert play.steps == ["commit a", *CLOSED]


def test_what_streams_is_committed_with_the_end_of_the_body(
    play: Play, unit: Unit
) -> None:
    verdict = Verdict(True, "status 200")
    play.sessions[0].kept_for_stream = True
    assert play.run(end_before_body(unit, verdict, error_response=False)) is None
    assert play.steps == []

    assert play.run(end_and_close(unit, lambda: verdict)) is None
    assert play.steps == COMMITTED + CLOSED


@pytest.mark.parametrize("error_response", [True, False])
def test_only_a_success_is_replaced_if_the_work_is_lost(
    play: Play, unit: Unit, error_response: bool
) -> None:
    unit.lose(LookupError())
    verdict = Verdict(True, "commit_anyway()")

    error = play.run(end_before_body(unit, verdict, error_response=error_response))

    assert isinstance(error, UnexpectedRollbackError) is not error_response
    assert play.steps == ROLLED_BACK


def test_a_rollback_before_a_retry_leaves_the_unit_open_but_refuses_work(
    play: Play, unit: Unit
) -> None:
    assert play.run(roll_back(unit, "it is tried again")) is None

    assert play.steps == ROLLED_BACK
    assert (unit.is_open, unit.reason) == (True, "it is tried again")
    assert play.sessions[0].access.value == "refused"


# Clients that leave, and the shutdown


def test_what_is_abandoned_is_rolled_back_and_closed(play: Play, unit: Unit) -> None:
    assert play.run(abandon(unit, "the client left")) is None

    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.reason == "the client left"


def test_the_shutdown_rolls_back_and_what_ends_later_raises(
    play: Play, unit: Unit
) -> None:
    assert play.run(shut_down(unit)) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.reason == "the application shut down"

    error = play.run(end_block(unit, None))
    assert isinstance(error, UnexpectedRollbackError)
    assert "shut down" in str(error)


# Two endings of one unit: the second one waits for its turn


@pytest.fixture
def first(play: Play, unit: Unit) -> Iterator[Plan[None]]:
    """An ending that is about to call its `before_commit` hook."""
    first = end_before_body(unit, Verdict(True, "status 200"), error_response=False)
    call_hook(next(first))
    yield first
    play.run(first)


def test_an_ending_that_is_cancelled_while_it_waits_disturbs_no_other(
    play: Play, unit: Unit, first: Plan[None]
) -> None:
    second = end_and_close(unit, lambda: Verdict(True, "status 200"))
    assert isinstance(next(second), Wait)
    with suppress(asyncio.CancelledError):
        second.throw(asyncio.CancelledError())  # it may wait on
    assert play.run(first) is None
    assert play.steps == COMMITTED

    play.run(second)

    assert unit.outcome is Outcome.COMMITTED


def test_a_message_that_is_cancelled_while_it_waits_forgets_no_lost_work(
    play: Play, unit: Unit
) -> None:
    first = handle_message(unit)
    call_hook(next(first))
    unit.lose(LookupError())
    second = handle_message(unit)
    assert isinstance(next(second), Wait)
    with suppress(asyncio.CancelledError):
        second.throw(asyncio.CancelledError())

    assert isinstance(play.run(first), UnexpectedRollbackError)

    assert unit.outcome is Outcome.ROLLED_BACK


def test_a_block_that_has_waited_long_enough_for_the_shutdown_says_so(
    play: Play, unit: Unit
) -> None:
    unit.is_sync = True
    first = shut_down(unit)
    next(first)
    second = end_block(unit, None)
    assert isinstance(next(second), Wait)

    with pytest.raises(UnexpectedRollbackError, match="shut down"):
        second.send(False)

    assert play.run(first) is None
    assert unit.state is UnitState.CLOSED


def test_a_rollback_that_is_asked_for_afterwards_excuses_no_lost_work(
    play: Play, unit: Unit, facade: UnitOfWork
) -> None:
    unit.lose(LookupError())
    facade.on_rollback(facade.rollback_only)
    plan = end_block(unit, None)
    play.make(next(plan))
    for _ in range(2):
        call_hook(plan.send(None))

    with pytest.raises(UnexpectedRollbackError):
        plan.send(None)
