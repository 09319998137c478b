"""How each kind of unit ends: a request's part, a block, a message, a shutdown."""

from __future__ import annotations

import time
from functools import partial

from ._drive import Pause, Plan
from ._ending import Outcome, Verdict
from ._engine.lost_work import unexpected_rollback
from ._hooks import Hooks
from ._plan import finish
from ._unit import BY_HAND, NOT_BEGUN, UnitOfWork
from .errors import PartialCommitError, UnexpectedRollbackError

__all__ = ["conclude", "cut_off", "end_message", "finish_unit"]

_STORED = (Outcome.COMMITTED, Outcome.UNKNOWN, Outcome.PARTIAL)
"""All, or maybe, or a part."""
_PAUSE = 0.005  # seconds between two looks at a unit that is being committed


def finish_unit(
    unit: UnitOfWork,
    *,
    commit: bool,
    reason: str,
    streaming: bool = True,
    may_lose: bool = False,
) -> Plan[None]:
    """End what is open, note the outcome; *streaming* sessions too, or not yet.

    What was doomed is rolled back all the same. Raises `UnexpectedRollbackError` if
    nobody had asked for that, unless the work *may* be lost without a word.
    """
    leases = partial(unit._open_leases, streaming=streaming)

    def wait() -> bool:
        """Whether the time of the hooks comes after the stream."""
        return not streaming and any(x.streaming for x in unit._open_leases())

    def hooks() -> Hooks | None:
        return None if unit._hooks and wait() else unit._hooks

    def settled(outcome: Outcome, error: BaseException | None) -> None:
        if unit._hooks and outcome is not Outcome.EMPTY and wait():
            unit._hooks.settled(outcome)
        why = reason
        if error is not None:
            why = _failed(error)
        elif outcome is Outcome.EMPTY:
            outcome = Outcome.COMMITTED if unit._by_hand else outcome
            why = BY_HAND if unit._by_hand else NOT_BEGUN
        elif commit and outcome is Outcome.ROLLED_BACK:
            why = unit._doomed or "an error was swallowed"
        unit._note(outcome, why)
        if unit._parent is not None and outcome in _STORED and unit._has_written:
            unit._has_stored()
        unit._settle(outcome)

    if not commit:  # a stray thread must not begin anew behind the rollback
        unit._settle(Outcome.ROLLED_BACK)
    unit._committing = commit
    try:
        committed = yield from finish(
            leases,
            hooks,
            commit=commit,
            doomed=lambda: unit._doomed is not None or unit._poison is not None,
            settled=settled,
            together=unit._together,
        )
    finally:
        unit._committing = False
        if unit._together is not None:
            unit._together.renew()
    if committed and unit._poison is not None and unit._is_lost:
        unit._poison = None  # `_cut_off` came too late: COMMIT was under way
    if commit and not committed and unit._doomed is None and not may_lose:
        if isinstance(unit._poison, UnexpectedRollbackError):
            raise unit._poison
        raise unexpected_rollback(unit._poison) from unit._poison


def conclude(unit: UnitOfWork, error: BaseException | None) -> Plan[None]:
    """End the unit of a block, for good."""
    reason = "the block ended" if error is None else _raised(error)
    unit._look_at_commits(error)
    try:
        yield from finish_unit(unit, commit=error is None, reason=reason)
    finally:
        unit._end()


def end_message(
    unit: UnitOfWork, error: BaseException | None, verdict: Verdict | None = None
) -> Plan[None]:
    """End what one WebSocket message has begun; the next one starts afresh."""
    reason = "the message was handled" if error is None else _raised(error)
    commit, reason = verdict or Verdict(error is None, reason)
    unit._commit_anyway = False
    unit._result = None
    try:
        yield from finish_unit(unit, commit=commit, reason=reason)
    finally:
        unit._doomed = unit._poison = None
        unit._settle(None)


def cut_off(unit: UnitOfWork) -> Plan[None]:
    """Roll back what is open, and refuse more: the application shuts down.

    A unit that is being committed gets some time for that.
    """
    leases = tuple((unit._leases or {}).values())
    until = time.monotonic() + max((x.patience for x in leases), default=0.0)
    while unit._committing and time.monotonic() < until:
        yield Pause(_PAUSE)
    if unit._ended or (unit.outcome is Outcome.COMMITTED and not unit._pending):
        unit._refuse()
        return
    unit._swallowed(
        UnexpectedRollbackError(
            "the application shut down before this unit of work had ended; it was "
            "rolled back"
        )
    )
    if any(lease.doubts is not None for lease in leases):
        for lease in leases:
            lease.discard()  # COMMIT does not end: its outcome is in doubt now
        return
    yield from finish_unit(unit, commit=False, reason="the application shut down")


def _failed(error: BaseException) -> str:
    if isinstance(error, PartialCommitError):
        return str(error)
    return f"COMMIT failed: {type(error).__name__}"


def _raised(error: BaseException) -> str:
    return f"{type(error).__name__} was raised"
