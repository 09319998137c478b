"""COMMIT of a unit's connection: it is sent by the session, which reads the answer.

All COMMITs pass here: those of a unit, `session.commit()`, `session.begin()` and
`connection.commit()`. SQLAlchemy has no event for the answer, so a method of the
dialect is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from . import postgresql
from .connection_state import INFO_KEY, ConnectionState, Loan
from .lost_work import check_before_commit, unexpected_rollback

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["CommitSender", "listen", "sender_of"]


class CommitSender:
    """The `do_commit()` of one dialect, and so of one pool."""

    __slots__ = ("_dialect", "send")

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.send: Callable[[Any], None] = dialect.do_commit
        """SQLAlchemy's own `do_commit()`; replaced by a test that lets COMMIT fail."""

    def __call__(self, dbapi_connection: Any) -> None:
        loan = _loan_of(dbapi_connection)
        if loan is None or loan.holder is None:
            self.send(dbapi_connection)
            return
        send = partial(self._send_for_unit, dbapi_connection, loan)
        loan.holder.send_commit(loan, send)

    def _send_for_unit(self, dbapi_connection: Any, loan: Loan) -> None:
        """Send COMMIT; raise unless the database has stored the work."""
        check_before_commit(loan, self._dialect, dbapi_connection.dbapi_connection)
        loan.is_being_ended = True
        try:
            is_stored = postgresql.commit(
                dbapi_connection, partial(self.send, dbapi_connection)
            )
        finally:
            loan.began = False  # also if COMMIT has failed
            loan.is_being_ended = False
        if not is_stored:
            raise unexpected_rollback(loan.failure) from loan.failure
        loan.is_committed = True


def listen(dialect: Dialect) -> None:
    """Watch the COMMITs and ROLLBACKs of *dialect*; call this once."""
    roll_back = dialect.do_rollback

    def do_rollback(dbapi_connection: Any) -> None:
        loan = _loan_of(dbapi_connection)
        if loan is None:
            roll_back(dbapi_connection)
            return
        loan.is_being_ended = True
        try:
            roll_back(dbapi_connection)
        finally:
            loan.is_being_ended = False
        loan.began = False  # SQLAlchemy has ended it, not the driver or SQL

    setattr(dialect, "do_commit", CommitSender(dialect))  # noqa: B010  # its method
    setattr(dialect, "do_rollback", do_rollback)  # noqa: B010


def sender_of(dialect: Dialect) -> CommitSender:
    """What `listen()` has given to *dialect*."""
    sender: CommitSender = vars(dialect)["do_commit"]
    return sender


def _loan_of(dbapi_connection: Any) -> Loan | None:
    try:
        info = getattr(dbapi_connection, "info", None)
    except NotImplementedError:  # SQLAlchemy's first connection, in initialize()
        return None
    if not isinstance(info, dict):  # a driver's connection, which is no unit's
        return None
    state: ConnectionState | None = info.get(INFO_KEY)
    return None if state is None else state.loan
