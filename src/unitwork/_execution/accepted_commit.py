"""What follows a COMMIT that has succeeded, although its answer was lost."""

from __future__ import annotations

import logging

from .._session import operations
from .._session.unit_session import UnitSession
from .plan import Plan, Step

__all__ = ["accept_commit"]

log = logging.getLogger("unitwork")


def accept_commit(session: UnitSession) -> Plan[None]:
    """End the transaction of *session* here, too; what fails undoes no COMMIT."""
    try:
        yield Step(operations.accept_commit, session)
    except Exception as error:
        log.warning("a committed session could not be ended", exc_info=error)
        session.abort_connections()
