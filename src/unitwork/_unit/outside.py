"""`unit.outside()` and `unit.release()`: no connection is held while others work."""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from functools import partial
from types import TracebackType

from sqlalchemy.orm import Session

from .._concurrency.worker import on_event_loop
from .._execution.async_runner import arun
from .._execution.plan import Plan, Step
from .._execution.sync_runner import run
from .._observing.unit_events import OutsideEntered, OutsideLeft
from .._session import releasing
from ..errors import UsageError
from .state import UnitState
from .unit import Unit

__all__ = ["Outside", "release"]

_BUSY = (
    "the connection of database {name!r} can't be released for {what}: another task or "
    "thread uses the session just now; await it first"
)
_ENDING = "{what} comes too late: this unit of work is ending; call it in the endpoint"
_ASYNC = (
    "the sessions of this unit are async: write `async with unit.outside(...):`, and "
    "`await unit.release()`"
)


class Outside:
    """The block of `unit.outside()`; it may be entered by several tasks at once."""

    __slots__ = ("_unit", "_what")

    def __init__(self, unit: Unit, what: str) -> None:
        self._unit = unit
        self._what = what

    async def __aenter__(self) -> None:
        self._enter()
        try:
            await arun(_release(self._unit, f"outside({self._what!r})"))
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        self._leave()

    def __enter__(self) -> None:
        _check_sync(self._unit)
        self._enter()
        try:
            run(_release(self._unit, f"outside({self._what!r})"))
        except BaseException:
            self._leave()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def _enter(self) -> None:
        # First of all: from now on no other task or thread can begin a statement.
        self._unit.sessions.enter_outside(self._what)
        if self._unit.report is not None:
            self._unit.report.emit(OutsideEntered, self._what)

    def _leave(self) -> None:
        self._unit.sessions.leave_outside(self._what)
        if self._unit.report is not None:
            self._unit.report.emit(OutsideLeft, self._what)


class _Released:
    """The result of `unit.release()` in a thread: awaiting it does nothing."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def release(unit: Unit) -> Awaitable[None]:
    """Release the connections of *unit*: at once in a thread, else when awaited."""
    if on_event_loop():
        return _arelease(unit)
    with Outside(unit, "release()"):
        return _Released()


async def _arelease(unit: Unit) -> None:
    async with Outside(unit, "release()"):
        pass


def _check_sync(unit: Unit) -> None:
    databases = unit.databases.values()
    if on_event_loop():
        wrong = any(database.is_async for database in databases)
    else:
        wrong = any(x.is_async and x.holds_connection for x in unit.sessions)
    if wrong:
        raise UsageError(_ASYNC)


def _release(unit: Unit, what: str) -> Plan[None]:
    """Release the connections of *unit*: all of them, or none."""
    holding = [x for x in unit.sessions if x.owned and x.holds_connection]
    for session in holding:
        if unit.state is not UnitState.OPEN:
            raise UsageError(_ENDING.format(what=what))
        if session.in_statement:
            raise UsageError(_BUSY.format(name=session.name, what=what))
    connected = [session for session in holding if session.connections]
    if connected and unit.two_phase is not None:
        raise UsageError(
            f"the connections of this unit can't be released for {what}: its databases "
            "are committed in two phases, and their transactions have begun together"
        )
    for session in connected:
        limit = session.settings.end_timeout
        yield Step(partial(_check, what), session, limit)
    for session in connected:
        yield Step(releasing.release, session, session.settings.end_timeout)
    for session in holding:
        session.release_permit()


def _check(what: str, session: Session) -> None:
    releasing.check_releasable(session, what)
