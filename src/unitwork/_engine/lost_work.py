"""The error for a transaction that has been rolled back unnoticed."""

from __future__ import annotations

from ..errors import UnexpectedRollbackError

__all__ = ["unexpected_rollback"]


def unexpected_rollback(error: BaseException | None) -> UnexpectedRollbackError:
    """Make the error to raise in place of a COMMIT that would store nothing.

    *error* is the one that was swallowed, if it is known.
    """
    what = "an error" if error is None else type(error).__name__
    return UnexpectedRollbackError(
        f"the work of this unit is lost: {what} in the middle of it was swallowed, and "
        "after that nothing can be committed. Let the error through, or put the risky "
        "part into a savepoint: `session.begin_nested()`"
    )
