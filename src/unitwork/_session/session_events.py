"""What a fenced session tells its unit of its commits, rollbacks and objects."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from .._driver.sqlalchemy_internals import has_modified
from .._transaction.lost_work import ended_elsewhere
from .after_statement import BeginsBefore
from .connecting import connected
from .dropped_work import drop
from .operations import check_not_lost, prepare_verification
from .savepoint import savepoint_ended
from .state import Access, CommitState
from .unit_session import UnitSession, unit_session_of

__all__ = ["EVENTS", "REPORTS"]

_SENT_BY_UNIT = CommitState.SENT_BY_UNIT


def _before_attach(session: BeginsBefore, instance: object) -> None:
    if session.unitwork_session is not None:
        session.unitwork_session.note_work()


def _before_commit(session: BeginsBefore) -> None:
    unit_session = session.unitwork_session
    if unit_session is None or unit_session.commit_state is _SENT_BY_UNIT:
        return  # see `operations.commit()`
    if session.in_nested_transaction():
        return
    unit_session.owner.check_commit()
    unit_session.activity.check_commit()
    if unit_session.ends.savepoints is not None:
        unit_session.ends.savepoints.check_commit()
    unit_session.commit_state = CommitState.SENT_BY_APPLICATION
    if unit_session.may_be_lost:
        check_not_lost(session)
    prepare_verification(unit_session)


def _after_commit(session: Session) -> None:
    """Called once COMMIT, or the RELEASE of a savepoint, has been answered."""
    unit_session: UnitSession | None = getattr(session, "unitwork_session", None)
    if unit_session is None:
        return
    # The innermost savepoint, or the transaction: what a flush begins is neither.
    transaction = session.get_nested_transaction() or session.get_transaction()
    unit_session.ends.committed = transaction
    if transaction is None or transaction.nested:
        return
    if unit_session.commit_state is _SENT_BY_UNIT:
        if session.expire_on_commit and has_modified(session):
            drop(session, "an object was changed beside COMMIT, which expires it")
        return
    unit_session.commit_state = CommitState.NOT_SENT
    if unit_session.connections or not unit_session.owned:
        unit_session.owner.user_committed(unit_session)


def _after_rollback(session: Session) -> None:
    """Called once ROLLBACK has been answered, perhaps because a flush has failed."""
    unit_session = unit_session_of(session)
    if unit_session is None:
        return
    ends = unit_session.ends
    ends.rolled_back = session.get_nested_transaction() or session.get_transaction()
    if unit_session.access is Access.OPEN and unit_session.was_replaced:
        unit_session.owner.commit_unclear(ended_elsewhere())  # too late to undo it


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    """Report a transaction or savepoint that has ended without being committed."""
    if transaction.origin is SessionTransactionOrigin.SUBTRANSACTION:
        return
    unit_session: UnitSession | None = getattr(session, "unitwork_session", None)
    if unit_session is None:
        return
    ends = unit_session.ends
    is_committed, is_rolled_back = ends.ended(transaction)
    if ends.savepoints is not None and transaction.nested:
        savepoint_ended(unit_session, transaction, released=is_committed)
    if is_committed:
        if ends.cancellation is not None:
            ends.raise_cancellation()
        return
    if unit_session.commit_state is _SENT_BY_UNIT:
        unit_session.ends.commit_undone = True
        return  # the unit itself calls or drops its hooks
    if not transaction.nested and not is_rolled_back:
        drop(session, "its transaction was closed, by neither COMMIT nor ROLLBACK")
    unit_session.owner.rolled_back(transaction)


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    """Forget a failure inside a savepoint: it does not matter any more."""
    unit_session = unit_session_of(session)
    if unit_session is not None and transaction.nested:
        for loan in unit_session.loans:
            if not loan.is_lost:
                loan.failure = None


REPORTS: dict[str, Callable[..., None]] = {
    "after_commit": _after_commit,
    "after_rollback": _after_rollback,
    "after_transaction_end": _after_transaction_end,
    "after_soft_rollback": _after_soft_rollback,
}
EVENTS: dict[str, Callable[..., None]] = {
    "after_begin": connected,
    "before_attach": _before_attach,
    "before_commit": _before_commit,
    **REPORTS,
}
