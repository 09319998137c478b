"""Work that was dropped by other means than `session.rollback()`."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..errors import UnexpectedRollbackError
from .state import Access
from .unit_session import unit_session_of

__all__ = ["drop", "dropped_work", "has_changes"]


def dropped_work(how: str) -> UnexpectedRollbackError:
    """Make the error to raise in place of a success; *how* says what has dropped it."""
    return UnexpectedRollbackError(
        f"the work of this unit is lost: {how}. Leave the end of the transaction to "
        "the unit; to undo what was done so far call `session.rollback()`, and to undo "
        "all of it `current_unit().rollback_only()`"
    )


def has_changes(session: Session) -> bool:
    if session.new or session.deleted:
        return True
    return any(session.is_modified(each) for each in session.dirty)


def drop(session: Session, how: str) -> None:
    """Let the unit of *session* fail: its work is lost, as *how* says."""
    unit_session = unit_session_of(session)
    if unit_session is not None and unit_session.access is Access.OPEN:
        unit_session.owner.lose(dropped_work(how))
