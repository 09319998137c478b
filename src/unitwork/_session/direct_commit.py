"""The COMMIT of a unit with one session and one connection, as one call."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from .._driver.sqlalchemy_internals import is_ready_to_commit
from .._transaction.loan import TransactionState
from .state import Access, CommitState

if TYPE_CHECKING:
    from .unit_session import UnitSession

__all__ = ["Readiness", "readiness_of"]

_OPEN = TransactionState.OPEN
_ACCESS_OPEN = Access.OPEN
_NOT_SENT = CommitState.NOT_SENT
_ASYNC_DRIVERS = {"asyncpg"}
"""Those that await nothing but futures, and cancel no task: see `Uncancelled`."""


class Readiness(Enum):
    """What has to be done to commit a session."""

    COMMIT = "COMMIT alone"
    """Nothing is lost, or to be flushed, and nothing else uses the session.

    A transaction that has had savepoints may be lost.
    """
    STEP = "one step"
    """`operations.commit()`."""
    MORE = "more than that"


_COMMIT, _STEP, _MORE = Readiness


def readiness_of(session: UnitSession) -> Readiness:
    """What is to be done to commit it, without an await in between."""
    if len(session.loans) != 1 or len(session.connections) != 1:
        return _MORE
    (loan,), (connection,) = session.loans, session.connections
    if (
        not session.owned
        or (session.is_async and connection.dialect.driver not in _ASYNC_DRIVERS)
        or session.reading is not None
        or loan.undecided is not None
        or loan.proxy is not None
        or loan.server_side_cursor is not None
        or session.kept_for_stream
        or session.activity.is_under_way
    ):
        return _MORE
    if (
        loan.state is _OPEN
        and loan.failure is None
        and loan.savepoints is None
        and session.access is _ACCESS_OPEN
        and session.commit_state is _NOT_SENT
        and is_ready_to_commit(session.sync_session, connection, session.ends.roots)
    ):
        # A thread may begin a statement at any time: see `Activity.reserve()`.
        return _COMMIT if session.is_async else _STEP
    return _MORE if session.in_statement else _STEP
