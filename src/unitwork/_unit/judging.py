"""The verdict on a response: the decision of its unit, then the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..outcome import CommitWhen, Ending, Verdict, judge, succeeded
from .decision import UNDECIDED
from .unit import Unit

__all__ = ["judge_request", "judge_response"]


def judge_response(unit: Unit, ending: Ending, commit_when: CommitWhen) -> Verdict:
    """Decide: what the code of the unit has decided comes before the policy."""
    if unit.report is not None:
        unit.report.error = ending.exception
    requested = unit.decision.requested
    if requested is not None:  # also if it is lost: the response relies on it
        return requested
    return judge(ending, commit_when)


def judge_request(
    unit: Unit,
    status: int,
    exception: BaseException | None,
    scope: Mapping[str, Any],
    commit_when: CommitWhen,
) -> Verdict:
    """Judge the response to a request, of which *scope* is that of ASGI.

    The default policy reads the status and the exception alone: it needs no `Ending`.
    """
    is_plain = exception is None and unit.decision is UNDECIDED
    if is_plain and commit_when is succeeded and unit.report is None:
        return Verdict(status < 400, f"status {status}")
    method, path = scope.get("method", ""), scope.get("path", "")
    ending = Ending(status=status, exception=exception, method=method, path=path)
    return judge_response(unit, ending, commit_when)
