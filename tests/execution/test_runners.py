"""`run()` and `arun()`: the steps of a plan, sync or async, with time limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.util import await_only

from support.play import StubLease
from unitwork import UsageError
from unitwork._drive import Plan, Step, arun, run

pytestmark = pytest.mark.anyio


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
