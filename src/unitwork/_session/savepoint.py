"""The savepoints of a session: who begins them, and whether they were undone."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import inf
from types import TracebackType
from typing import Any

from anyio import current_effective_deadline, move_on_after
from sqlalchemy.orm import Session, SessionTransaction

from .._driver.savepoint_internals import watch_changes
from .._transaction.savepoints import OpenSavepoints
from ..errors import UnexpectedRollbackError
from .unit_session import UnitSession, unit_session_of

__all__ = [
    "CheckedTransaction",
    "savepoint_ended",
    "savepoints_of",
    "transaction_begun",
]

_ROLLED_BACK = (
    "the work of this {block} block is lost: a flush inside it has failed, which has "
    "rolled it back, and the error was swallowed there. Let the error leave the block; "
    "catch it around the block"
)


class CheckedTransaction(SessionTransaction):
    """Raises if its block ends without an error although a flush has rolled it back.

    SQLAlchemy would end it in silence, and what follows would take it for stored.
    """

    __slots__ = ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        undone = not self.is_active and _is_open(self)
        lost = kind is None and undone
        block = "begin_nested()" if self.nested else "begin()"
        if kind is not None and self.nested and not _is_open(self):
            _found_ended(self)
        if undone:
            _undo_changes(self.session)
        unit_session = unit_session_of(self.session)
        try:
            with _time_to_end(unit_session):
                super().__exit__(kind, error, traceback)
        finally:
            if self.nested and unit_session is not None:  # another task has released it
                unit_session.owner.savepoint_ended(self)
        if lost:
            raise UnexpectedRollbackError(_ROLLED_BACK.format(block=block))


def _time_to_end(session: UnitSession | None) -> AbstractContextManager[object]:
    """Shield the end in a scope of anyio that is cancelled: it cancels each `await`."""
    if session is None or not session.is_async:
        return nullcontext()
    if current_effective_deadline() > -inf:
        return nullcontext()
    return move_on_after(session.settings.end_timeout, shield=True)


def transaction_begun(session: UnitSession, transaction: SessionTransaction) -> None:
    """Let the end of its block be checked; record by whom a savepoint was begun."""
    transaction.__class__ = CheckedTransaction
    if not transaction.nested:
        return
    savepoints = savepoints_of(session)
    savepoints.begun(transaction)
    is_of_commit = session.activity.is_own_step  # a listener to its flush has begun it
    if not is_of_commit and session.owner.savepoint_begun(transaction):
        savepoints.contains_all(transaction)
    watch_changes(session.sync_session, savepoints.note_work)


def savepoint_ended(
    session: UnitSession, savepoint: SessionTransaction, *, released: bool
) -> None:
    """Record the end of a savepoint."""
    is_own = savepoints_of(session).ended(savepoint, released=released)
    if is_own or not released:  # else its block goes on
        session.owner.savepoint_ended(savepoint)


def watch_again(session: UnitSession | None) -> None:
    """Watch the changes of a session that has dropped its objects."""
    savepoints = None if session is None else session.ends.savepoints
    if session is not None and savepoints is not None:
        watch_changes(session.sync_session, savepoints.note_work)


def savepoints_of(session: UnitSession) -> OpenSavepoints:
    """Return the record of its savepoints; make it known to its connections."""
    if session.ends.savepoints is None:
        session.ends.savepoints = OpenSavepoints(
            session.owner, partial(_unflushed, session.sync_session)
        )
    for loan in session.loans:
        loan.savepoints = session.ends.savepoints
    return session.ends.savepoints


def _unflushed(session: Session) -> Any:
    """The objects whose changes are not flushed, by identity."""
    return session.new | session.dirty | session.deleted


def _undo_changes(session: Session) -> None:
    """Undo what was changed after the flush that has failed, and is not flushed.

    SQLAlchemy does so in `rollback()`, which a block does not call then.
    """
    for each in session.new:
        session.expunge(each)
    for each in session.deleted:
        session.add(each)
    for each in session.dirty:
        session.expire(each)


def _found_ended(savepoint: SessionTransaction) -> None:
    unit_session = unit_session_of(savepoint.session)
    if unit_session is not None and unit_session.ends.savepoints is not None:
        unit_session.ends.savepoints.found_ended()


def _is_open(transaction: SessionTransaction) -> bool:
    """Whether it has not been ended by hand."""
    session = transaction.session
    return transaction in (session.get_nested_transaction(), session.get_transaction())
