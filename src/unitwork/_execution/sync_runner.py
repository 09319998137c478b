"""Runs a plan in the thread of its caller."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

from sqlalchemy.exc import IllegalStateChangeError

from .._callables import returned_plainly
from .._concurrency.watchdog import Watchdog
from .._session.unit_session import UnitSession
from .patience import POLL_INTERVAL, Patience
from .plan import Call, HookCall, HookTimeoutError, Pause, Plan, Step, Wait

__all__ = ["run"]

T = TypeVar("T")


def run(plan: Plan[T]) -> T:
    """Make each step of *plan* at once, in this thread."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            result = _make(step)
        except GeneratorExit as caught:  # which would close the plan
            error = _chained(caught)
        except BaseException as caught:
            error = caught


def _chained(error: GeneratorExit) -> RuntimeError:
    chained = RuntimeError("GeneratorExit was raised")
    chained.__cause__ = error
    return chained


def _make(step: Step | HookCall | Call | Pause | Wait) -> Any:
    match step:
        case Step():
            return _make_step(step)
        case HookCall():
            return _call_hook(step)
        case Call(call):
            return call()
        case Pause(seconds):
            return time.sleep(seconds)
        case Wait(future, limit):
            with suppress(TimeoutError):
                future.result(limit)
            return future.done()


def _make_step(step: Step) -> Any:
    session = step.session
    patience = Patience(session)
    while True:
        if not (step.waits and session.in_statement):
            with suppress(IllegalStateChangeError):  # another thread uses it just now
                return _make_now(step)
        patience.check()
        time.sleep(POLL_INTERVAL)


def _make_now(step: Step) -> Any:
    make_step = step.session.activity.make_step
    if step.limit is None:
        return make_step(step.call, step.session.sync_session)
    with _AbortAfter(step.limit, (step.session,)):
        return make_step(step.call, step.session.sync_session)


def _call_hook(step: HookCall) -> Any:
    limit = math.inf if step.limit is None else step.limit
    until = time.monotonic() + limit
    with _AbortAfter(limit, step.sessions) if step.sessions else nullcontext():
        result = step.call()
    returned_plainly("a hook", result)
    if step.sessions and time.monotonic() > until:
        raise HookTimeoutError
    return result


class _AbortAfter(Watchdog):
    """Aborts the connections of sessions when the time is over."""

    __slots__ = ("_sessions",)

    def __init__(self, limit: float, sessions: Sequence[UnitSession]) -> None:
        self.seconds = limit
        self._sessions = sessions

    def expired(self) -> None:
        for session in self._sessions:
            session.abort_connections()
