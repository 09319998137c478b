"""How a unit of work ends: the policy, and the outcome. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from ._callables import returned_plainly

__all__ = ["CommitWhen", "Ending", "Outcome", "succeeded"]


class Outcome(Enum):
    """The outcome of a unit of work.

    .. versionadded:: 0.1
    """

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"
    """The connection was lost during COMMIT, or the session did not send it."""
    PARTIAL = "partial"
    """One database has committed, and another one has not, or may not have."""
    EMPTY = "empty"
    """No transaction was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What decides about the unit of a request, when its response starts.

    *status* is the response's; *exception* is the one that a handler of the application
    is turning into that response, or `None`; *method* and *path* are the request's.

    .. versionadded:: 0.1
    """

    status: int
    exception: BaseException | None = None
    method: str = ""
    path: str = ""


CommitWhen = Callable[[Ending], bool]


class Verdict(NamedTuple):
    """Whether to commit, and why."""

    commit: bool
    reason: str


def succeeded(ending: Ending) -> bool:
    """Commit unless there was an exception or the status is 400 or above: the default.

    .. versionadded:: 0.1
    """
    return ending.exception is None and ending.status < 400


def judge(ending: Ending, commit_when: CommitWhen) -> Verdict:
    """Apply the policy to *ending*; raise `UsageError` unless it returns a `bool`."""
    commit: object = commit_when(ending)
    if commit is not True and commit is not False:
        returned_plainly("commit_when", commit, bool)
    if commit:
        return Verdict(True, f"status {ending.status}")
    if ending.exception is not None:
        return Verdict(False, f"{type(ending.exception).__name__} was raised")
    return Verdict(False, f"status {ending.status}")
