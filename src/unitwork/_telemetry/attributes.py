"""The attributes of metrics and spans: few values each, whatever the requests are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from .._observing.subjects import UnitInfo
from .._observing.unit_events import UnitEnded
from ..errors import DeadlineExceededError, UnexpectedRollbackError
from ..outcome import Outcome

__all__ = [
    "Attributes",
    "UnitKey",
    "attempt_of",
    "cause_of",
    "connection_attributes",
    "end_attributes",
    "error_type",
    "key_of",
    "unit_attributes",
]

Attributes: TypeAlias = Mapping[str, str | int]
UnitKey: TypeAlias = tuple[str, str, str | None]

_KEPT = 1024  # combinations of values

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
    "no transaction was begun": "no_transaction",
    "the client left": "unfinished",
    "the response was not finished": "unfinished",
    "the WebSocket has ended": "unfinished",
    "the request is retried": "retry",
    "the application shut down": "shutdown",
}


def key_of(unit: UnitInfo) -> UnitKey:
    """What distinguishes the units of an application: kind, method, route."""
    return unit.kind, unit.method, unit.route


@lru_cache(maxsize=_KEPT)
def unit_attributes(key: UnitKey) -> Attributes:
    """The attributes of all units with this *key*: one mapping, not to be changed."""
    kind, method, route = key
    found: dict[str, str | int] = {"unitwork.kind": kind}
    if route is not None:
        found["http.route"] = route
    if method:
        known = method in _KNOWN_METHODS
        found["http.request.method"] = method if known else "_OTHER"
    return found


@lru_cache(maxsize=_KEPT)
def connection_attributes(key: UnitKey, database: str) -> Attributes:
    """Those of the connections of such units to *database*."""
    return {**unit_attributes(key), "unitwork.database": database}


@lru_cache(maxsize=_KEPT)
def end_attributes(
    key: UnitKey, outcome: Outcome, cause: str, attempt: int, error: str | None
) -> Attributes:
    """Those of the ends of such units."""
    found = {
        **unit_attributes(key),
        "unitwork.outcome": outcome.name.lower(),
        "unitwork.reason": cause,
        "unitwork.attempt": attempt,
    }
    return found if error is None else {**found, "error.type": error}


def attempt_of(unit: UnitInfo) -> int:
    return min(unit.attempt, _MOST_ATTEMPTS)


def error_type(error: BaseException, sqlstate: str | None) -> str:
    """The SQLSTATE, or the number, or else the class of *error*."""
    return sqlstate or type(error).__qualname__


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
