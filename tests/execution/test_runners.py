"""`run()` and `arun()`: the steps of a plan, sync or async, with time limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import anyio
import pytest
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from unitwork import DatabaseSettings, UsageError
from unitwork._execution.async_runner import arun
from unitwork._execution.plan import Call, HookCall, Pause, Plan, Step, Wait
from unitwork._execution.sync_runner import run
from unitwork._session.opening import Opening
from unitwork._session.unit_session import UnitSession
from unitwork._transaction.loan import Loan

pytestmark = pytest.mark.anyio


class IdleSession(UnitSession):
    """Has nothing to connect to; counts how often its connections are broken off."""

    __slots__ = ("aborts",)

    def __init__(
        self, session: Session | AsyncSession | None = None, *, patience: float = 60
    ) -> None:
        owner: Any = None
        opening = Opening(DatabaseSettings(end_timeout=patience))
        super().__init__(session or Session(), owner, "a", opening)
        self.aborts = 0

    def abort_connections(self) -> None:
        self.aborts += 1


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
    """Either runner, in its own habitat."""
    if request.param == "run":
        return run
    return lambda plan: asyncio.run(arun(plan))


def steps(*wanted: Step | HookCall | Call | Pause | Wait) -> Plan[list[Any]]:
    """Make the *wanted* steps; give results and errors, in order."""
    found: list[Any] = []
    for step in wanted:
        try:
            found.append((yield step))
        except BaseException as error:
            found.append(type(error))
    return found


def one(step: Step | HookCall | Call | Pause | Wait) -> Plan[Any]:
    return (yield step)


def fail(error: BaseException, *args: object) -> None:
    raise error


def test_results_and_errors_go_back_into_the_plan(drive: Any) -> None:
    session = IdleSession()
    wanted = [
        Step(lambda session: "result", session),
        Step(partial(fail, LookupError()), session),
        HookCall(partial(fail, LookupError())),
        Step(lambda sync_session: sync_session, session),
    ]

    found = drive(steps(*wanted))

    assert found == ["result", LookupError, LookupError, session.sync_session]


def test_what_a_plan_raises_comes_out(drive: Any) -> None:
    with pytest.raises(LookupError, match="x"):
        drive(one(HookCall(partial(fail, LookupError("x")))))


def test_a_session_that_is_in_use_is_waited_for(drive: Any) -> None:
    call = Once(times=3)

    assert drive(steps(Step(call, IdleSession()))) == ["done"]
    assert call.calls == 4


def test_patience_has_an_end(drive: Any) -> None:
    session = IdleSession(patience=0.02)

    with pytest.raises(UsageError, match=r"0\.02 seconds .* `db\.transaction\(\)`"):
        drive(one(Step(Once(times=10**9), session)))
    assert session.aborts == 1


def test_a_session_in_the_middle_of_a_statement_is_waited_for(drive: Any) -> None:
    class Busy(IdleSession):
        looks = 0

        @property
        def in_statement(self) -> bool:
            Busy.looks += 1
            return Busy.looks < 4

    assert drive(steps(Step(lambda session: Busy.looks, Busy()))) == [4]


def test_a_statement_that_does_not_end_is_broken_off(drive: Any) -> None:
    session = IdleSession(patience=0.02)
    loan = Loan(None)
    loan.statements_in_flight = 1
    session.loans.append(loan)

    with pytest.raises(UsageError):
        drive(one(Step(lambda session: None, session)))
    assert session.aborts == 1


@pytest.mark.parametrize("is_async", [True, False])
def test_a_call_has_no_session(drive: Any, is_async: bool) -> None:
    wanted = [
        Call(lambda: "result", is_async),
        Call(partial(fail, LookupError()), is_async),
    ]

    assert drive(steps(*wanted)) == ["result", LookupError]


def test_a_call_of_an_async_engine_is_made_in_a_greenlet() -> None:
    call = Call(lambda: await_only(asyncio.sleep(0, "result")), True)

    assert asyncio.run(arun(one(call))) == "result"


def test_a_call_of_a_sync_engine_is_made_in_a_thread() -> None:
    found = asyncio.run(arun(one(Call(threading.get_ident, False))))

    assert found != threading.get_ident()


def test_a_pause_takes_its_time(drive: Any) -> None:
    start = time.monotonic()

    drive(one(Pause(0.02)))

    assert time.monotonic() - start >= 0.019


@pytest.mark.parametrize("limit", [None, 60])
def test_a_future_is_waited_for(drive: Any, limit: float | None) -> None:
    future: Future[None] = Future()
    timer = threading.Timer(0.01, future.set_result, (None,))
    timer.start()

    assert drive(one(Wait(future, limit))) is True
    timer.join()


def test_a_future_is_not_waited_for_beyond_the_limit(drive: Any) -> None:
    future: Future[None] = Future()

    assert drive(one(Wait(future, 0.01))) is False
    assert not future.done()


async def test_sync_steps_run_in_a_thread_even_if_the_framework_has_none_left() -> None:
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with limiter:
            step = Step(lambda session: threading.get_ident(), IdleSession())
            thread = await arun(one(step))
    finally:
        limiter.total_tokens = before

    assert thread != threading.get_ident()


async def test_an_async_step_beyond_its_limit_is_broken_off_and_cancelled() -> None:
    def hang(session: object) -> None:
        await_only(asyncio.Event().wait())

    session = IdleSession(AsyncSession())

    found = await arun(steps(Step(hang, session, limit=0.01)))

    assert found == [TimeoutError]
    assert session.aborts == 1


def test_a_sync_step_beyond_its_limit_is_broken_off(drive: Any) -> None:
    class Hanging(IdleSession):
        __slots__ = ("aborted",)

        def abort_connections(self) -> None:
            self.aborted.set()

    session = Hanging()
    session.aborted = threading.Event()

    found = drive(one(Step(lambda _: session.aborted.wait(10), session, limit=0.5)))

    assert found is True
