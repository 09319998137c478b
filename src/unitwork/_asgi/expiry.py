"""What happens to a request whose deadline passes."""

from __future__ import annotations

from .._concurrency.deadline import Deadline
from ..errors import DeadlineExceededError
from ..outcome import Outcome
from .exception_handlers import Failure
from .response import ReplaceableResponse
from .state import ResponseState

__all__ = ["expire"]


def expire(request: ReplaceableResponse, deadline: Deadline) -> bool | None:
    """Give up, as the deadline has passed; but what is committed stands.

    `None`: not yet, as a `session.commit()` is under way.
    """
    if request.response not in (ResponseState.WAITING, ResponseState.RETRY):
        return False
    unit = request.open_unit()
    was_ended = unit.verdict is not None and unit.outcome is not None
    if was_ended or unit.outcome not in (None, Outcome.EMPTY):
        return False  # its hooks have been called, also if it was empty
    sessions = unit.sessions_to_end()
    if any(session.user_commit_pending for session in sessions):
        return None
    undone = (
        "what session.commit() had not committed" if unit.committed_by_user else "it"
    )
    error = DeadlineExceededError(
        f"the request was not done within {deadline.limit:g} seconds, its deadline; "
        f"{undone} was rolled back"
    )
    if not unit.cut_off(error):
        return False
    request.failure = Failure(error)
    request.move(ResponseState.REPLACED)
    for session in sessions:
        if not session.is_async and session.in_statement:
            session.abort_connections()  # nothing else could stop its thread
    return True
