"""ROLLBACK of one session, which has to end whatever fails."""

from __future__ import annotations

import logging

from .._execution.plan import Plan, Step
from .._session import operations
from .._session.state import Access
from .._session.unit_session import UnitSession

__all__ = ["roll_back_session"]

log = logging.getLogger("unitwork")


def roll_back_session(session: UnitSession) -> Plan[bool]:
    """Roll back; return whether anything was open still.

    Its connection is aborted if that fails. Raises only if it is cancelled.
    """
    rollback = Step(operations.rollback, session, session.settings.end_timeout)
    try:
        return bool((yield rollback))
    except Exception as error:
        _warn(session, "a connection could not be rolled back", error)
        session.abort_connections()
        try:
            yield rollback  # its connection is aborted; now for the session itself
        except Exception as again:
            _warn(session, "a session could not be closed", again)
    return True


def _warn(session: UnitSession, what: str, error: Exception) -> None:
    if session.access is not Access.CLOSED:  # else its own task has ended it meanwhile
        log.warning(what, exc_info=error)
