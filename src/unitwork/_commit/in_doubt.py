"""A COMMIT in doubt: its connection was lost, so the outcome is queried."""

from __future__ import annotations

import time
from functools import partial

from sqlalchemy.util import await_only

from .._execution.async_runner import arun
from .._execution.plan import Plan
from .._execution.repeated_query import query_until_known
from .._execution.sync_runner import run
from .._observing.unit_events import OutcomeVerified
from .._session.commits import in_doubt
from .._session.state import CommitState
from .._session.unit_session import UnitSession
from .._transaction.commit_status import verify
from ..errors import CommitUnknownError, PartialCommitError

__all__ = [
    "is_in_doubt",
    "query_outcome",
    "query_outcome_now",
]


def is_in_doubt(session: UnitSession, error: BaseException) -> bool:
    """Whether the work may be stored although COMMIT has raised *error*."""
    if session.commit_state is not CommitState.SENT_BY_UNIT:
        return False
    return not isinstance(error, PartialCommitError) and in_doubt(error)


def query_outcome(session: UnitSession) -> Plan[bool | None]:
    """Verify the outcome of COMMIT; `None` if that can't be done, or not in time."""
    pending = session.verifications
    if not pending or session.was_replaced:
        return None
    started_at = time.monotonic()
    query = partial(verify, pending, session.is_async)
    try:
        found = yield from query_until_known(session, query)
    except CommitUnknownError:
        found = None
    if found and any(loan.may_be_another for loan in session.loans):
        found = None  # the driver may have committed it, and begun another one
    if (report := session.owner.report) is not None:
        duration = time.monotonic() - started_at
        report.emit(OutcomeVerified, session.name, duration, found)
    return found


def query_outcome_now(session: UnitSession) -> bool | None:
    """The same, in the thread or the greenlet in which the session is used."""
    if session.is_async:
        return await_only(arun(query_outcome(session)))
    return run(query_outcome(session))
