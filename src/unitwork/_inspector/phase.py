"""What a unit does at this moment. No I/O, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterable

from .._session.state import Access, CommitState
from .._session.unit_session import UnitSession
from .._unit.state import UnitState
from .._unit.unit import Unit

__all__ = ["WAITING", "is_waiting", "phase_of"]

WAITING = "waiting for a connection"

_OF_STATE = {
    UnitState.ENDING: "before COMMIT",
    UnitState.COMMITTING: "COMMIT",
    UnitState.ROLLING_BACK: "ROLLBACK",
    UnitState.SETTLED: "after its end",
    UnitState.CLOSED: "closed",
}


def phase_of(unit: Unit, sessions: Iterable[UnitSession]) -> tuple[str, str]:
    """The phase of *unit*, and what belongs to it: the name of an `outside()` block.

    Of several sessions the one that works counts.
    """
    if unit.state is not UnitState.OPEN:
        return _OF_STATE[unit.state], ""
    found = "no connection", ""
    for session in sessions:
        if is_waiting(session):
            return WAITING, ""
        if session.access is Access.OUTSIDE:
            found = "outside", session.outside_of
        elif session.commit_state is not CommitState.NOT_SENT:
            return "COMMIT", ""
        elif session.activity.is_beginning:
            return "BEGIN", ""
        elif session.loans:
            if session.activity.is_under_way:
                return "statement", ""
            found = "idle in transaction", ""
    return found


def is_waiting(session: UnitSession) -> bool:
    """Whether *session* waits for a connection, or for the permit to use one."""
    permit = session.permit
    return session.awaiting_connection or (permit is not None and permit.is_awaited)
