"""How each kind of unit ends: a block, a message, a response, a shutdown.

Each is a plan. A unit has one ending at a time: later ones wait for their turn.
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from .._classify.classification import Phase, classify
from .._commit.finish import finish
from .._commit.hook_calls import end_timeout
from .._commit.made import Made
from .._commit.observation import observation
from .._execution.plan import Plan, Wait
from .._session.state import CommitState
from .._session.unit_session import UnitSession
from ..errors import UnexpectedRollbackError
from ..outcome import Verdict
from .open_blocks import OpenBlocks
from .reporting import report_settled
from .running import run_ending
from .slow_units import report_if_slow
from .state import UnitState
from .unit import Unit

__all__ = [
    "abandon",
    "close",
    "end_and_close",
    "end_before_body",
    "end_block",
    "end_message",
    "go_on_after_commit",
    "note_commits",
    "raised",
    "roll_back",
    "shut_down",
]

T = TypeVar("T")

_SHUT_DOWN = (
    "the application shut down before this unit of work had ended; it was rolled back"
)


def end(
    unit: Unit,
    decide: Callable[[], Verdict],
    *,
    keep_streams_open: bool = False,
    made: Made | None = None,
) -> Plan[None]:
    """Wait for the turn, *decide*, then commit or roll back.

    A COMMIT that was *made* has had its turn.

    The unit is open again afterwards, but its sessions refuse work: the caller reopens
    them or closes it. Does nothing to a unit that was closed meanwhile. Raises what
    COMMIT raises, and `UnexpectedRollbackError` if the work was lost although the
    verdict was to commit.
    """
    cancelled = None
    while made is None and not unit.begin_ending(keep_streams_open=keep_streams_open):
        if unit.is_open:
            try:
                yield from _wait_for_turn(unit)
            except CancelledError as error:
                cancelled = error
        elif unit.cut_off_by is not None and decide().commit:
            raise unit.unexpected()
        else:
            return
    if cancelled is not None:
        reason = raised(cancelled)
        decide = partial(Verdict, False, reason)
    try:
        verdict, committed = yield from _decide_and_finish(unit, decide, made)
    finally:
        if unit.sessions.are_timed:
            report_if_slow(unit)
        if (observer := observation.observer) is not None:
            observer.unit_ended(unit)
        try:
            if unit.report is not None:
                report_settled(unit, unit.report)
        finally:  # an observer may raise `KeyboardInterrupt`
            unit.end_turn(UnitState.OPEN)
    expected = committed or not verdict.commit or unit.rollback_was_requested
    if cancelled is not None:
        raise cancelled
    if not expected:
        raise unit.unexpected()


def _decide_and_finish(
    unit: Unit, decide: Callable[[], Verdict], made: Made | None
) -> Plan[tuple[Verdict, bool]]:
    try:
        unit.verdict = verdict = decide()
        if verdict.commit and unit.known_blocks is not None and made is None:
            yield from _wait_for_blocks(unit, unit.known_blocks)
    except BaseException as error:
        unit.verdict = Verdict(False, raised(error))
        yield from finish(unit, commit=False)
        raise
    return verdict, (yield from finish(unit, commit=verdict.commit, made=made))


def _wait_for_blocks(unit: Unit, blocks: OpenBlocks) -> Plan[None]:
    """Let other tasks finish what they do inside: half of it must not be stored."""
    limit = end_timeout(unit.sessions)
    until = time.monotonic() + limit
    while (others := blocks.end_of_others()) is not None:
        left = until - time.monotonic()
        if left <= 0 or not (yield Wait(others, left)):
            raise blocks.cut_off(limit)


def _wait_for_turn(unit: Unit) -> Plan[None]:
    # A thread waits with a time limit: it may block the event loop of that ending.
    limit = end_timeout(unit.sessions) if unit.is_sync else None
    if not (yield Wait(unit.next_turn(), limit)):
        raise unit.unexpected()


def raised(error: BaseException) -> str:
    return f"{type(error).__name__} was raised"


def end_block(unit: Unit, error: BaseException | None) -> Plan[None]:
    """End the unit of a block, and close it."""
    reason = "the block ended" if error is None else raised(error)
    note_commits(unit, error)
    yield from end_and_close(unit, lambda: Verdict(error is None, reason))


def end_and_close(unit: Unit, decide: Callable[[], Verdict]) -> Plan[None]:
    try:
        yield from end(unit, decide)
    finally:
        if not unit.is_ending:
            unit.close()


def end_message(unit: Unit, decide: Callable[[], Verdict]) -> Plan[None]:
    """End what one WebSocket message has begun; reset the unit for the next one."""

    def decide_anew() -> Verdict:
        if unit.is_open:
            unit.outcome, unit.reason = None, ""
        return decide()

    try:
        yield from end(unit, decide_anew)
    finally:
        unit.sessions.forget_replicas()
        unit.start_afresh()


def end_before_body(
    unit: Unit, verdict: Verdict, *, keep_streams_open: bool = True
) -> Plan[None]:
    """End it before the response starts; its body may begin again.

    What a server-side cursor reads from, or `stream=True` keeps, goes on if
    *keep_streams_open*.
    """

    def decide() -> Verdict:
        if verdict.commit and unit.known_blocks is not None:
            unit.known_blocks.check_held()
        return verdict

    yield from end(unit, decide, keep_streams_open=keep_streams_open)
    unit.reopen_sessions()


def go_on_after_commit(
    unit: Unit,
    verdict: Verdict,
    session: UnitSession,
    *,
    sent: bool,
    error: BaseException | None,
) -> Plan[None]:
    """Go on, as `end_before_body()` does, after a COMMIT that was made directly."""
    made = Made(session, sent, error)
    yield from end(unit, lambda: verdict, made=made)
    unit.reopen_sessions()


def roll_back(unit: Unit, reason: str) -> Plan[None]:
    """Roll back what is open; the sessions refuse work from then on."""
    yield from end(unit, lambda: Verdict(False, reason))


def abandon(unit: Unit, reason: str) -> Plan[None]:
    """Roll back what is open, and close the unit."""
    yield from end_and_close(unit, lambda: Verdict(False, reason))


async def close(unit: Unit, reason: str) -> None:
    """Refuse more work at once, roll back what is open, and close the unit."""
    if unit.state is UnitState.OPEN:
        if not unit.needs_ending:
            unit.close()
            return
        unit.request_rollback(reason)  # whichever ending comes first
        unit.sessions.refuse()
    if unit.is_open:
        await run_ending(unit, abandon(unit, reason))


def shut_down(unit: Unit) -> Plan[None]:
    """Roll back what is open, and refuse more: the application shuts down.

    An ending that is under way gets `end_timeout`; then its connections are aborted,
    and it determines its outcome by itself.
    """
    until = time.monotonic() + end_timeout(unit.sessions)
    while not unit.begin_ending():
        left = until - time.monotonic()
        if not unit.is_open:
            return
        if left <= 0 or not (yield Wait(unit.next_turn(), left)):
            unit.cut_off(UnexpectedRollbackError(_SHUT_DOWN))
            unit.sessions.abort_connections()
            return
    if unit.sessions_to_end() or unit.hooks:
        unit.cut_off(UnexpectedRollbackError(_SHUT_DOWN))
    try:
        unit.verdict = Verdict(False, "the application shut down")
        yield from finish(unit, commit=False)
    finally:
        unit.close()


def note_commits(unit: Unit, error: BaseException | None) -> None:
    """Forbid a retry if something is, or may be, stored already.

    *error* may be that of the application's own `session.commit()`.
    """
    if error is not None:
        unit.note_replica_failure(error)
    for session in unit.sessions:
        pending = session.commit_state is CommitState.SENT_BY_APPLICATION
        if (
            pending
            and error is not None
            and classify(error, phase=Phase.COMMIT).unknown
        ):
            unit.forbid_retry("the outcome of session.commit() is unknown")
        if session.has_autocommitted:
            unit.forbid_retry("each statement was committed at once")
