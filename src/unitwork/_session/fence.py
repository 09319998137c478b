"""The fence: makes the sessions of a class refuse work after the end of their unit.

It is written once, for the sync `Session`; an `AsyncSession` gets it through its
`sync_session_class`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from .operations import check_not_lost
from .state import CommitState
from .unit_session import UnitSession, unit_session_of

__all__ = ["fenced", "reporting"]


class _Fenced(Session):
    """Added to a session class: refuses work once the unit of the session has ended."""

    unitwork_session: UnitSession | None = None
    """Not private, as other modules read it, and named so that no subclass has it."""

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        unit_session = self.unitwork_session
        if unit_session is None:
            return super().get_bind(*args, **kwargs)
        unit_session.check()
        bind = super().get_bind(*args, **kwargs)
        return unit_session.bind(bind, begun=self.in_transaction())

    def flush(self, *args: Any, **kwargs: Any) -> None:
        # SQLAlchemy would report a session that is being rolled back as well.
        if self.unitwork_session is not None:
            self.unitwork_session.check()
        super().flush(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        # Its objects are detached: SQLAlchemy would report that, not the end.
        if self.unitwork_session is not None:
            self.unitwork_session.check()
        super().refresh(*args, **kwargs)

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        # Private to SQLAlchemy, the same in 2.0 and 2.1. Without it `add()` after the
        # end would still be refused (`close_resets_only=False`), with another error.
        unit_session = self.unitwork_session
        if unit_session is not None and not self.in_transaction():
            unit_session.check()
            unit_session.begin()
        return super()._autobegin_t(begin)


@cache
def fenced(session_class: type[Session]) -> type[Session]:
    """Derive from *session_class* the class of the sessions of units."""
    made: type[Session] = type(session_class.__name__, (_Fenced, session_class), {})
    event.listen(made, "after_begin", _after_begin)
    event.listen(made, "before_commit", _before_commit)
    for name, listener in _REPORTS.items():
        event.listen(made, name, listener)
    return made


@contextmanager
def reporting(session: Session) -> Iterator[None]:
    """Let a session made by a test report its commits and rollbacks to its unit."""
    if isinstance(session, _Fenced):
        yield
        return
    for name, listener in _REPORTS.items():
        event.listen(session, name, listener)
    try:
        yield
    finally:
        for name, listener in _REPORTS.items():
            event.remove(session, name, listener)


def _after_begin(
    session: _Fenced, transaction: SessionTransaction, connection: Connection
) -> None:
    if session.unitwork_session is not None and not transaction.nested:
        session.unitwork_session.connected(connection)


def _before_commit(session: _Fenced) -> None:
    unit_session = session.unitwork_session
    if unit_session is None or session.in_nested_transaction():
        return
    if unit_session.commit_state is CommitState.SENT_BY_UNIT:
        return  # see `operations.commit()`
    unit_session.commit_state = CommitState.SENT_BY_APPLICATION
    if unit_session.may_be_lost:
        check_not_lost(session)


def _after_commit(session: Session) -> None:
    unit_session = unit_session_of(session)
    if unit_session is None or session.in_nested_transaction():
        return
    if unit_session.commit_state is CommitState.SENT_BY_UNIT:
        return
    unit_session.commit_state = CommitState.NOT_SENT
    if unit_session.connections or not unit_session.owned:
        unit_session.owner.user_committed()


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    if transaction.nested:
        unit_session.savepoint_rolled_back()
    elif unit_session.commit_state is CommitState.SENT_BY_UNIT:
        return  # the unit itself calls or drops its hooks
    unit_session.owner.rolled_back(transaction)


_REPORTS: dict[str, Callable[..., None]] = {
    "after_commit": _after_commit,
    "after_soft_rollback": _after_soft_rollback,
}
