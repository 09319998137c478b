"""The attributes of metrics and spans: few values each, whatever the requests are."""

from __future__ import annotations

from .._observing.subjects import UnitInfo
from .._observing.unit_events import UnitEnded
from ..errors import DeadlineExceededError, UnexpectedRollbackError
from ..outcome import Outcome

__all__ = ["Attributes", "cause_of", "error_type", "unit_attributes"]

Attributes = dict[str, str | int]

_KNOWN_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"}
    | {"TRACE"}
)
_MOST_ATTEMPTS = 5  # all from there on are one value
_CAUSES = {
    "the block ended": "success",
    "the message was handled": "success",
    "commit_anyway()": "commit_anyway",
    "session.commit() was called": "by_application",
    "session.rollback() was called": "by_application",
    "no transaction was begun": "unused",
    "the client left": "unfinished",
    "the response was not finished": "unfinished",
    "the WebSocket has ended": "unfinished",
    "the request is retried": "retry",
    "the application shut down": "shutdown",
}


def unit_attributes(unit: UnitInfo) -> Attributes:
    """Those that tell the units of an application apart: kind, method, route."""
    found: Attributes = {"unitwork.kind": unit.kind}
    if unit.route is not None:
        found["http.route"] = unit.route
    if unit.method:
        known = unit.method in _KNOWN_METHODS
        found["http.request.method"] = unit.method if known else "_OTHER"
    return found


def attempt_of(unit: UnitInfo) -> int:
    return min(unit.attempt, _MOST_ATTEMPTS)


def error_type(error: BaseException | None, sqlstate: str | None) -> str | None:
    """The SQLSTATE, or the number, or else the class of *error*."""
    return sqlstate or (None if error is None else type(error).__qualname__)


def cause_of(ended: UnitEnded) -> str:
    """Why a unit has ended so, as one of a few words: a reason may be any text."""
    reason = ended.reason
    if isinstance(ended.error, DeadlineExceededError):
        return "deadline"
    if reason.startswith("COMMIT failed"):
        return "commit_failed"
    if ended.outcome in (Outcome.UNKNOWN, Outcome.PARTIAL):
        return "in_doubt"
    if isinstance(ended.error, UnexpectedRollbackError):
        return "lost"
    if reason.startswith("status "):
        return "status"
    if reason.endswith(" was raised"):
        return "exception"
    return _CAUSES.get(reason, "requested")
