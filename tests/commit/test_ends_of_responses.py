"""The plans of messages, responses and shutdowns, and of two endings at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from support.play import Play
from support.played_units import CLOSED, COMMITTED, DROPPED, ROLLED_BACK, call_hook
from unitwork import Outcome, UnexpectedRollbackError, UnitOfWork
from unitwork._execution.plan import Plan, Wait
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
from unitwork._unit.state import UnitState
from unitwork._unit.unit import Unit
from unitwork.outcome import Verdict

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("facade")]

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
    assert play.run(end_before_body(unit, verdict)) is None
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
    assert play.run(end_before_body(unit, verdict)) is None
    assert play.steps == []

    assert play.run(end_and_close(unit, lambda: verdict)) is None
    assert play.steps == COMMITTED + CLOSED


def test_the_shutdown_rolls_back_what_a_response_is_streaming_from(
    play: Play, unit: Unit
) -> None:
    verdict = Verdict(True, "status 200")
    play.sessions[0].kept_for_stream = True
    play.run(end_before_body(unit, verdict))

    assert play.run(shut_down(unit)) is None
    assert play.steps == ROLLED_BACK + DROPPED
    assert unit.outcome is Outcome.ROLLED_BACK


@pytest.mark.parametrize("commit", [True, False])
def test_a_response_is_replaced_if_the_work_that_it_should_commit_is_lost(
    play: Play, unit: Unit, commit: bool
) -> None:
    unit.lose(LookupError())

    error = play.run(end_before_body(unit, Verdict(commit, "status 409")))

    assert isinstance(error, UnexpectedRollbackError) is commit
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
    first = end_before_body(unit, Verdict(True, "status 200"))
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
