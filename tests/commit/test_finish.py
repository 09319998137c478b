"""The plans without a database: which steps they make, and what if one of them fails.

`Play` makes the steps of a plan and fails the one that it is told to.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    Outcome,
    PartialCommitError,
    UnexpectedRollbackError,
    UnitOfWork,
    UsageError,
    _session,
)
from unitwork._drive import Plan, Step, arun, run
from unitwork._ends import conclude, end_message
from unitwork._hooks import Hook, Hooks
from unitwork._plan import finish

pytestmark = pytest.mark.anyio

CALLS = {
    _session.verify: "verify",
    Session.flush: "flush",
    _session.commit: "commit",
    _session.rollback: "rollback",
}
FAILURES = [LookupError, KeyboardInterrupt, asyncio.CancelledError]


class StubLease:
    """What a plan and a unit want to know of a lease; `open` till its step is made."""

    is_async = False
    streaming = False
    busy = False
    suspect = False
    over = False
    places = ()
    committing = False
    stores_at_once = False
    patience = 0.0
    settings = DatabaseSettings(commit_timeout=9.0)
    doubts: Any = ()

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name = name
        self.steps = steps
        self.open = True
        self.ended: UnitOfWork | None = None
        self.sync_session: Any = self

    def get_nested_transaction(self) -> None:
        return None

    get_transaction = get_nested_transaction

    def in_doubt(self, error: BaseException) -> bool:
        return isinstance(error, CommitUnknownError | ConnectionError)

    def discard(self) -> None:
        self.steps.append(f"discard {self.name}")

    def leave(self) -> None:
        pass

    def close(self, unit: UnitOfWork) -> None:
        became = unit.outcome.value if unit.outcome else "open"
        self.steps.append(f"close {self.name}: {became}")


class Play:
    """Makes the steps of a plan, fails on cue, and keeps a list."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcomes: list[Outcome] = []
        self.hooks = Hooks()
        self.leases: list[StubLease] = []

    def lease(self, name: str) -> StubLease:
        self.leases.append(StubLease(name, self.steps))
        return self.leases[-1]

    def hook(self, kind: str, name: str) -> None:
        queue = getattr(self.hooks, kind)
        queue.append(Hook(partial(self.steps.append, name), ()))

    def finish(
        self, *, commit: bool, doomed: Callable[[], bool] = lambda: False
    ) -> Plan[bool]:
        def settled(outcome: Outcome, error: BaseException | None) -> None:
            self.outcomes.append(outcome)

        def open_leases() -> Any:
            return [lease for lease in self.leases if lease.open]

        return finish(
            open_leases,
            lambda: self.hooks,
            commit=commit,
            doomed=doomed,
            settled=settled,
        )

    def make(self, step: Step) -> str:
        if step.lease is None:
            step.call()
            return self.steps.pop()
        lease: Any = step.lease
        name = CALLS[step.call]
        if name in ("commit", "rollback"):
            lease.open = False
        return f"{name} {lease.name}"

    def run(
        self, plan: Plan[Any], fail_at: int = -1, error: BaseException | None = None
    ) -> BaseException | None:
        """Make the steps; raise *error* in place of number *fail_at*. Say what came."""
        made = 0
        caught: BaseException | None = None
        try:
            step = next(plan)
            while True:
                failing = made == fail_at
                was_open = getattr(step.lease, "open", None)
                name = self.make(step)
                made += 1
                self.steps.append(f"{name} fails" if failing else name)
                if failing and error is not None:
                    if step.lease is not None:
                        step.lease.open = was_open  # type: ignore[misc, assignment]  # a stub
                    step = plan.throw(error)
                else:
                    step = plan.send(None)
        except StopIteration:
            pass
        except BaseException as raised:
            caught = raised
        return caught


@pytest.fixture
def play() -> Play:
    return Play()


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


# finish()


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


# The plans of a unit


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


# run() and arun()


class Once:
    """A session that refuses, *times* over, as another task is using it."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.calls = 0

    def __call__(self, session: object) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise IllegalStateChangeError("in use")
        return "done"


@pytest.fixture(params=["run", "arun"])
def drive(request: pytest.FixtureRequest) -> Callable[[Plan[Any]], Any]:
    """Either driver, in its own habitat."""
    if request.param == "run":
        return run
    return lambda plan: asyncio.run(arun(plan))


def steps(*wanted: Step) -> Plan[list[Any]]:
    """Make the *wanted* steps; give results and errors, in order."""
    found: list[Any] = []
    for step in wanted:
        try:
            found.append((yield step))
        except BaseException as error:
            found.append(type(error))
    return found


def one(step: Step) -> Plan[Any]:
    return (yield step)


def fail(error: BaseException, *args: object) -> None:
    raise error


def test_results_and_errors_go_back_into_the_plan(drive: Any) -> None:
    lease: Any = StubLease("a", [])
    wanted = [
        Step(lambda session: "result", lease),
        Step(partial(fail, LookupError()), lease),
        Step(partial(fail, LookupError())),
        Step(lambda session: session, lease),
    ]

    found = drive(steps(*wanted))

    assert found == ["result", LookupError, LookupError, lease]


def test_what_a_plan_raises_comes_out(drive: Any) -> None:
    with pytest.raises(LookupError, match="x"):
        drive(one(Step(partial(fail, LookupError("x")))))


def test_a_session_that_is_in_use_is_waited_for(drive: Any) -> None:
    lease: Any = StubLease("a", [])
    lease.patience = 60
    session = Once(times=3)

    assert drive(steps(Step(session, lease))) == ["done"]
    assert session.calls == 4


def test_patience_has_an_end(drive: Any) -> None:
    lease: Any = StubLease("a", [])
    lease.patience = 0.02

    with pytest.raises(UsageError, match=r"0\.02 seconds .* db\.transaction\(\)"):
        drive(one(Step(Once(times=10**9), lease)))
    assert lease.steps == ["discard a"]


def test_a_busy_line_is_waited_for(drive: Any) -> None:
    class Busy(StubLease):
        looks = 0

        @property
        def busy(self) -> bool:  # type: ignore[override]  # that is the point
            self.looks += 1
            return self.looks < 4

    lease: Any = Busy("a", [])
    lease.patience = 60

    assert drive(steps(Step(lambda session: lease.looks, lease))) == [4]


async def test_sync_steps_run_in_a_thread_even_if_the_framework_has_none_left() -> None:
    lease: Any = StubLease("a", [])
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with limiter:
            threads = await arun(
                steps(Step(lambda session: threading.get_ident(), lease))
            )
    finally:
        limiter.total_tokens = before

    assert threads[0] != threading.get_ident()


async def test_a_step_beyond_its_limit_is_broken_off() -> None:
    class Async(StubLease):
        is_async = True

    def hang(session: object) -> None:
        await_only(asyncio.Event().wait())

    lease: Any = Async("a", [])

    found = await arun(steps(Step(hang, lease, limit=0.01)))

    assert found == [TimeoutError]
