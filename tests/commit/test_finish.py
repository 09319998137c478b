"""`finish()` without a database: which steps it makes, and what if one fails."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from support.play import CALLS, Play
from unitwork import CommitUnknownError, Outcome, PartialCommitError
from unitwork._plan import finish

pytestmark = pytest.mark.anyio

FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


def full(play: Play) -> None:
    """Two databases, and two hooks of each kind."""
    for name in ("a", "b"):
        play.lease(name)
        for kind in ("before_commit", "on_commit", "on_rollback"):
            play.hook(kind, f"{kind} {name}")


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
    play.lease("a")

    play.run(play.finish(commit=True))

    assert play.steps == ["commit a"]


def test_rolls_every_database_back(play: Play) -> None:
    full(play)

    assert play.run(play.finish(commit=False)) is None
    assert play.steps == ROLLING_BACK
    assert play.outcomes == [Outcome.ROLLED_BACK]


@pytest.mark.parametrize("commit", [True, False])
def test_does_nothing_where_nothing_was_begun(play: Play, commit: bool) -> None:
    play.run(play.finish(commit=commit))

    assert (play.steps, play.outcomes) == ([], [Outcome.EMPTY])


def test_does_without_hooks(play: Play) -> None:
    lease: Any = play.lease("a")

    play.run(finish(lambda: [lease], lambda: None, commit=True))

    assert play.steps == ["commit a"]


def test_rolls_back_when_a_hook_has_doomed_the_unit(play: Play) -> None:
    full(play)
    doomed = iter([False, True])

    play.run(play.finish(commit=True, doomed=lambda: next(doomed)))

    assert play.steps == COMMITTING[:2] + ROLLING_BACK
    assert play.outcomes == [Outcome.ROLLED_BACK]


def test_a_doomed_unit_calls_no_hook_before_commit(play: Play) -> None:
    full(play)

    play.run(play.finish(commit=True, doomed=lambda: True))

    assert play.steps == ROLLING_BACK


def test_a_suspect_transaction_is_verified_before_anything_else(play: Play) -> None:
    full(play)
    play.leases[1].suspect = True

    play.run(play.finish(commit=True))

    assert play.steps == ["verify b", *COMMITTING]


@pytest.mark.parametrize("kind", FAILURES)
def test_a_suspect_transaction_that_is_lost_takes_all_with_it(
    play: Play, kind: type[BaseException]
) -> None:
    full(play)
    play.leases[0].suspect = True
    error = kind("lost")

    assert play.run(play.finish(commit=True), 0, error) is error
    assert play.steps == ["verify a fails", *ROLLING_BACK]


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


@pytest.mark.parametrize("kind", FAILURES)
def test_a_first_commit_that_fails_rolls_all_back(
    play: Play, kind: type[BaseException]
) -> None:
    full(play)
    error = kind("first")

    assert play.run(play.finish(commit=True), 4, error) is error
    assert play.steps == [*COMMITTING[:4], "commit a fails", *ROLLING_BACK]
    assert not hasattr(error, "__notes__")


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
    play: Play, error: Exception, rolled_back: Any, unknown: Any
) -> None:
    for name in "abc":
        play.lease(name)

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
    steps[step : step + 1] = [f"{failed} fails", f"discard {'ab'[step]}", failed]
    assert play.steps == steps
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_a_rollback_that_fails_hides_no_error_of_commit(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    play.lease("a")
    plan = play.finish(commit=True)
    error = LookupError("commit")
    next(plan)
    step = plan.throw(error)
    assert CALLS[step.call] == "rollback"

    plan.throw(OSError("rollback"))
    with pytest.raises(LookupError) as caught:
        plan.throw(OSError("again"))

    assert caught.value is error
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 2
    assert play.steps == ["discard a"]


def test_each_step_has_a_time_limit_of_its_own(play: Play) -> None:
    lease = play.lease("a")
    lease.patience = 7

    for commit, limit in ((True, 9), (False, 7)):
        plan = play.finish(commit=commit)
        assert next(plan).limit == limit
        play.run(plan)
