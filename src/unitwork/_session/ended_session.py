"""The error for the use of a session whose unit has ended."""

from __future__ import annotations

from ..errors import SessionEndedError

__all__ = ["ended_session"]


def ended_session(ended: str, *, is_async: bool) -> SessionEndedError:
    """Make the error; *ended* says how the unit has ended."""
    keyword = "async with" if is_async else "with"
    return SessionEndedError(
        f"this session's unit of work has ended ({ended}). For work after the response "
        "(a background task, a task of your own) or in a hook, open a unit of its own: "
        f"`{keyword} db.transaction() as session:`"
    )
