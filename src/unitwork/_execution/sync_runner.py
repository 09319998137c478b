"""Runs a plan in the thread of its caller."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.exc import IllegalStateChangeError

from .._callables import returned_plainly
from .._concurrency.watchdog import Watchdog
from .._session.unit_session import UnitSession
from .patience import POLL_INTERVAL, Patience
from .plan import Call, Pause, Plan, Step, Wait

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
        except BaseException as caught:
            error = caught


def _make(step: Step | Call | Pause | Wait) -> Any:
    match step:
        case Step():
            return _make_step(step)
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
    if session is None:
        result = step.call()
        returned_plainly("a hook", result)
        return result
    patience = Patience(session)
    while True:
        if not session.in_statement:
            with suppress(IllegalStateChangeError):  # another thread uses it just now
                if step.limit is None:
                    return step.call(session.sync_session)
                with _AbortAfter(step.limit, session):
                    return step.call(session.sync_session)
        patience.check()
        time.sleep(POLL_INTERVAL)


class _AbortAfter(Watchdog):
    """Aborts the connections of a session when the time is over."""

    __slots__ = ("_session",)

    def __init__(self, limit: float, session: UnitSession) -> None:
        self.seconds = limit
        self._session = session

    def expired(self) -> None:
        self._session.abort_connections()
