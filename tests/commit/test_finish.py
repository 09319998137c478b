"""`finish()` without a database: which steps it makes, and what if one fails."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.play import Play, name_of
from unitwork import (
    CommitUnknownError,
    Outcome,
    PartialCommitError,
    UnexpectedRollbackError,
)

pytestmark = pytest.mark.anyio

FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


def full(play: Play) -> None:
    """Two databases, and two hooks of each kind."""
    for name in ("a", "b"):
        play.session(name)
        for kind in ("before_commit", "on_commit", "on_rollback"):
            play.hook(kind, f"{kind} {name}")


class Unreadable:
    """A connection, or its loan, that raises whatever is read of it."""

    invalidated = was_replaced = is_committed = has_ended_elsewhere = False
    has_stored = False
    hold = holder = None

    @property
    def may_have_written(self) -> bool:
        raise LookupError("the connection")


COMMITTING = [
    "before_commit a",
    "before_commit b",
    "flush a",
    "flush b",
    "commit a",
    "commit b",
    "on_commit a",
    "on_commit b",
]
ROLLING_BACK = ["rollback a", "rollback b", "on_rollback a", "on_rollback b"]


def test_commits_every_database_after_a_flush_of_all(play: Play) -> None:
    full(play)

    assert play.run(play.finish(commit=True)) is None
    assert play.steps == COMMITTING
    assert play.outcomes == [Outcome.COMMITTED]


def test_one_database_needs_no_flush_of_its_own(play: Play) -> None:
    play.session("a")

    play.run(play.finish(commit=True))

    assert play.steps == ["commit a"]


def test_rolls_every_database_back(play: Play) -> None:
    full(play)

    assert play.run(play.finish(commit=False)) is None
    assert play.steps == ROLLING_BACK
    assert play.outcomes == [Outcome.ROLLED_BACK]


def test_the_outcome_is_recorded_although_a_connection_can_not_be_read(
    play: Play,
) -> None:
    session = play.session("a")
    session.connections.append(Unreadable())  # type: ignore[arg-type]  # as far as needed
    session.loans.append(Unreadable())  # type: ignore[arg-type]  # as above

    error = play.run(play.finish(commit=False))

    assert isinstance(error, LookupError)
    assert play.outcomes == [Outcome.ROLLED_BACK]


@pytest.mark.parametrize("commit", [True, False])
def test_does_nothing_where_nothing_was_begun(play: Play, commit: bool) -> None:
    play.run(play.finish(commit=commit))

    assert (play.steps, play.outcomes) == ([], [Outcome.EMPTY])


def test_does_without_hooks(play: Play) -> None:
    play.session("a")
    play.unit.hooks = None

    play.run(play.finish(commit=True))

    assert play.steps == ["commit a"]


# A unit that must be rolled back


def test_rolls_back_when_a_hook_has_asked_for_that(play: Play) -> None:
    full(play)
    play.unit.rollback_when = lambda: "before_commit b" in play.steps

    play.run(play.finish(commit=True))

    assert play.steps == COMMITTING[:2] + ROLLING_BACK
    assert play.outcomes == [Outcome.ROLLED_BACK]


def test_a_unit_to_be_rolled_back_calls_no_hook_before_commit(play: Play) -> None:
    full(play)
    play.unit.rollback_when = lambda: True

    play.run(play.finish(commit=True))

    assert play.steps == ROLLING_BACK


@pytest.mark.parametrize("names", ["a", "ab"])
def test_rolls_back_when_the_flush_has_asked_for_that(play: Play, names: str) -> None:
    asked: list[bool] = []
    play.unit.rollback_when = lambda: bool(asked)
    for name in names:
        play.session(name).play_session.on_flush = lambda: asked.append(True)

    assert play.run(play.finish(commit=True)) is None

    tried = ["commit a is not sent"] if names == "a" else ["flush a", "flush b"]
    assert play.steps == tried + [f"rollback {name}" for name in names]
    assert play.outcomes == [Outcome.ROLLED_BACK]


# What the flush registers


def test_a_hook_that_the_flush_registers_is_called_before_commit(play: Play) -> None:
    session = play.session("a").play_session
    session.on_flush = lambda: play.hook("before_commit", "hook")

    play.run(play.finish(commit=True))

    assert play.steps == ["commit a is not sent", "hook", "commit a"]
    assert play.outcomes == [Outcome.COMMITTED]


def test_a_hook_that_one_flush_of_several_registers_is_called_before_all_commits(
    play: Play,
) -> None:
    full(play)
    session = play.sessions[1].play_session
    session.on_flush = lambda: play.hook("before_commit", "hook")

    play.run(play.finish(commit=True))

    assert play.steps == [*COMMITTING[:4], "hook", *COMMITTING[2:]]


def test_a_hook_on_commit_that_the_flush_registers_is_called(play: Play) -> None:
    session = play.session("a").play_session
    session.on_flush = lambda: play.hook("on_commit", "hook")

    play.run(play.finish(commit=True))

    assert play.steps == ["commit a", "hook"]


# Work that is lost


def test_the_work_is_checked_before_the_hooks_are_called(play: Play) -> None:
    full(play)
    play.sessions[1].play_session.is_lost = True

    error = play.run(play.finish(commit=True))

    assert isinstance(error, UnexpectedRollbackError)
    assert play.steps == ["check_not_lost b fails", *ROLLING_BACK]


def test_a_failure_that_has_cost_nothing_is_no_obstacle(play: Play) -> None:
    full(play)
    session = play.sessions[1].play_session
    session.is_lost = True
    plan = play.finish(commit=True)
    step = next(plan)
    session.is_lost = False
    assert name_of(step) == "check_not_lost"  # type: ignore[arg-type]  # a Step

    assert play.run(plan) is None
    assert play.steps == COMMITTING


@pytest.mark.parametrize("kind", FAILURES)
def test_a_check_that_fails_rolls_all_back(
    play: Play, kind: type[BaseException]
) -> None:
    full(play)
    play.sessions[0].play_session.is_lost = True
    error = kind("lost")

    assert play.run(play.finish(commit=True), 0, error) is error
    assert play.steps == ["check_not_lost a fails", *ROLLING_BACK]


@pytest.mark.parametrize(("names", "failed"), [("a", "commit a"), ("ab", "flush a")])
def test_without_hooks_the_work_is_checked_with_the_flush(
    play: Play, names: str, failed: str
) -> None:
    for name in names:
        play.session(name).play_session.is_lost = True

    error = play.run(play.finish(commit=True))

    assert isinstance(error, UnexpectedRollbackError)
    assert play.steps == [f"{failed} fails", *(f"rollback {name}" for name in names)]
    assert play.outcomes == [Outcome.ROLLED_BACK]


# Failures


@pytest.mark.parametrize("kind", FAILURES)
@pytest.mark.parametrize("step", range(4))
def test_a_failure_before_the_first_commit_rolls_all_back(
    play: Play, step: int, kind: type[BaseException]
) -> None:
    full(play)
    error = kind("first")

    assert play.run(play.finish(commit=True), step, error) is error
    failed = f"{COMMITTING[step]} fails"
    assert play.steps == [*COMMITTING[:step], failed, *ROLLING_BACK]
    assert play.outcomes == [Outcome.ROLLED_BACK]


def test_a_first_commit_that_fails_rolls_all_back(play: Play) -> None:
    full(play)
    error = LookupError("first")

    assert play.run(play.finish(commit=True), 4, error) is error
    assert play.steps == [*COMMITTING[:4], "commit a fails", *ROLLING_BACK]
    assert play.outcomes == [Outcome.ROLLED_BACK]
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, asyncio.CancelledError])
def test_a_first_commit_that_is_interrupted_is_of_unknown_outcome(
    play: Play, kind: type[BaseException]
) -> None:
    full(play)
    play.hook("on_unknown", "unknown")
    error = kind("first")

    assert play.run(play.finish(commit=True), 4, error) is error
    assert play.steps[4:] == ["commit a fails", "rollback a", "rollback b", "unknown"]
    assert play.outcomes == [Outcome.UNKNOWN]


@pytest.mark.parametrize("kind", FAILURES)
def test_a_second_commit_that_fails_says_that_the_first_stands(
    play: Play, kind: type[BaseException]
) -> None:
    full(play)
    play.hook("on_unknown", "unknown")
    error = kind("second")

    raised = play.run(play.finish(commit=True), 5, error)

    assert play.steps[5:] == ["commit b fails", "rollback b", "unknown"]
    assert play.outcomes == [Outcome.PARTIAL]
    assert raised is error or isinstance(raised, PartialCommitError)


@pytest.mark.parametrize(
    ("error", "rolled_back", "unknown"),
    [(LookupError(), ("b", "c"), ()), (ConnectionError(), ("c",), ("b",))],
)
def test_a_partial_commit_names_every_database(
    play: Play,
    error: Exception,
    rolled_back: tuple[str, ...],
    unknown: tuple[str, ...],
) -> None:
    for name in "abc":
        play.session(name)

    raised = play.run(play.finish(commit=True), 4, error)

    assert isinstance(raised, PartialCommitError)
    assert raised.committed == ("a",)
    assert (raised.rolled_back, raised.unknown) == (rolled_back, unknown)
    assert raised.__cause__ is error


def test_a_commit_of_unknown_outcome_calls_the_hooks_for_that_alone(play: Play) -> None:
    full(play)
    play.hook("on_unknown", "unknown")
    error = ConnectionError("lost")

    unknown = play.run(play.finish(commit=True), 4, error)

    assert isinstance(unknown, CommitUnknownError)
    assert unknown.__cause__ is error
    assert play.steps[4:] == ["commit a fails", "rollback a", "rollback b", "unknown"]
    assert play.outcomes == [Outcome.UNKNOWN]


def test_an_unknown_outcome_that_the_session_has_raised_is_not_its_own_cause(
    play: Play,
) -> None:
    full(play)

    raised = play.run(play.finish(commit=True), 4, error := CommitUnknownError())

    assert raised is error
    assert raised.__cause__ is None
    assert play.outcomes == [Outcome.UNKNOWN]


@pytest.mark.parametrize("kind", [LookupError, asyncio.CancelledError])
@pytest.mark.parametrize("step", [6, 7])
def test_a_hook_that_fails_after_commit_is_logged_and_the_others_are_called(
    play: Play,
    caplog: pytest.LogCaptureFixture,
    step: int,
    kind: type[BaseException],
) -> None:
    full(play)

    assert play.run(play.finish(commit=True), step, kind("late")) is None
    steps = [*COMMITTING]
    steps[step] += " fails"
    assert (play.steps, play.outcomes) == (steps, [Outcome.COMMITTED])
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize("step", [6, 7])
def test_a_process_that_is_told_to_exit_calls_no_more_hooks(
    play: Play, step: int
) -> None:
    full(play)
    error = KeyboardInterrupt()

    assert play.run(play.finish(commit=True), step, error) is error
    assert play.outcomes == [Outcome.COMMITTED]
    assert "rollback a" not in play.steps


@pytest.mark.parametrize("step", [0, 1])
def test_a_rollback_that_fails_is_logged_and_its_connection_thrown_away(
    play: Play, caplog: pytest.LogCaptureFixture, step: int
) -> None:
    full(play)

    assert play.run(play.finish(commit=False), step, LookupError()) is None
    steps = [*ROLLING_BACK]
    failed = steps[step]
    steps[step : step + 1] = [f"{failed} fails", f"abort {'ab'[step]}", failed]
    assert play.steps == steps
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_a_rollback_that_fails_hides_no_error_of_commit(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    play.session("a")
    plan = play.finish(commit=True)
    error = LookupError("commit")
    next(plan)
    step = plan.throw(error)
    assert name_of(step) == "rollback"  # type: ignore[arg-type]  # a Step

    plan.throw(OSError("rollback"))
    with pytest.raises(LookupError) as caught:
        plan.throw(OSError("again"))

    assert caught.value is error
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2
    assert play.steps == ["abort a"]


def test_each_step_has_a_time_limit_of_its_own(play: Play) -> None:
    play.session("a")

    for commit, limit in ((True, 9), (False, 7)):
        plan = play.finish(commit=commit)
        assert getattr(next(plan), "limit", None) == limit
        play.run(plan)
        play.session("a")
