"""The error for work that was dropped by other means than `session.rollback()`."""

from __future__ import annotations

from ..errors import UnexpectedRollbackError

__all__ = ["dropped_work"]


def dropped_work(how: str) -> UnexpectedRollbackError:
    """Make the error to raise in place of a success; *how* says what has dropped it."""
    return UnexpectedRollbackError(
        f"the work of this unit is lost: {how}. Leave the end of the transaction to "
        "the unit; to undo what was done so far call `session.rollback()`, and to undo "
        "all of it `current_unit().rollback_only()`"
    )
