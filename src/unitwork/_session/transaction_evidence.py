"""What is known of a session's transaction, by the connections that it uses."""

from __future__ import annotations

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from .._driver.sqlalchemy_internals import (
    is_autocommit,
    is_changing,
    is_connecting,
)
from .._engine.begin import STATEMENT, BindCache, TransactionCharacteristics
from .._transaction.hold import ConnectionUse, Hold, use_of
from .._transaction.loan import Loan
from .activity import Activity
from .state import CommitState
from .transaction_ends import TransactionEnds

__all__ = ["TransactionEvidence"]


class TransactionEvidence:
    """The part of a `UnitSession` that reads the state of its connections. No I/O."""

    __slots__ = ()

    activity: Activity
    begun_with: TransactionCharacteristics | None
    binds: BindCache | None
    commit_state: CommitState
    connections: list[Connection]
    ends: TransactionEnds
    holds: list[Hold]
    kept_for_stream: bool
    loans: list[Loan]
    sync_session: Session
    use_before: ConnectionUse

    @property
    def was_released(self) -> bool:
        """Whether its last statement was executed in the release mode "statement"."""
        return self.begun_with is not None and self.begun_with.release == STATEMENT

    @property
    def use(self) -> ConnectionUse:
        """How long it has held connections, those included that it still holds."""
        present = [loan.hold for loan in self.loans if loan.hold is not None]
        return use_of([*self.holds, *present], self.use_before)

    @property
    def is_streaming(self) -> bool:
        """Whether its transaction lasts on: for a server-side cursor, or on request."""
        if self.kept_for_stream:
            return True
        for loan in self.loans:
            if loan.server_side_cursor is not None and loan.is_streaming:
                return True
        return False

    def note_work(self) -> None:
        """Record that this task or thread does what a savepoint may roll back."""
        if self.ends.savepoints is not None:
            self.ends.savepoints.note_work()

    @property
    def may_have_written(self) -> bool:
        session = self.sync_session
        unflushed = session.new or session.dirty or session.deleted
        loans = self.loans
        return bool(unflushed) or any(x.may_have_written for x in loans)

    @property
    def has_autocommitted(self) -> bool:
        """Whether it may have written in AUTOCOMMIT; by option, that refuses writes."""
        loans = self.loans
        if all(x.client_side_read_only and not x.may_have_written for x in loans):
            return False
        return any(is_autocommit(each) for each in self.connections)

    @property
    def may_be_stored(self) -> bool:
        """Whether ROLLBACK can't undo all: it comes too late, or in AUTOCOMMIT.

        Or the database has said so, as MariaDB does for tables without transactions.
        """
        if self.was_replaced or any(x.has_stored for x in self.loans):
            return True
        # A connection that was lost at BEGIN has no loan.
        pairs = zip(self.connections, self.loans, strict=False)
        return any(x.may_have_written and is_autocommit(each) for each, x in pairs)

    @property
    def in_statement(self) -> bool:
        """Whether another task or thread is at work in it.

        It connects, flushes, executes a statement, or ends a transaction or savepoint.
        """
        if self.activity.is_under_way or self.activity.is_being_ended:
            return True
        return is_changing(self.sync_session) or self.is_being_returned

    @property
    def is_being_returned(self) -> bool:
        """Whether a ROLLBACK was answered, and its connections are being returned."""
        undone = self.ends.rolled_back is not None
        return undone and not self.sync_session.in_transaction()

    @property
    def is_committed(self) -> bool:
        """Whether the unit's COMMIT was acknowledged, whatever happened since."""
        if self.commit_state is not CommitState.SENT_BY_UNIT:
            return False  # `connection.commit()`: the work after it is not committed
        return bool(self.loans) and all(loan.is_committed for loan in self.loans)

    @property
    def user_commit_pending(self) -> bool:
        """Whether the application's own COMMIT is under way."""
        sent = self.commit_state is CommitState.SENT_BY_APPLICATION
        if not sent or self.activity.is_under_way or is_connecting(self.sync_session):
            return False  # a flush comes first
        return any(connection.in_transaction() for connection in self.connections)

    @property
    def was_committed_by_connection(self) -> bool:
        """Whether `connection.commit()` has ended a transaction of the session."""
        if self.commit_state is CommitState.SENT_BY_UNIT:
            return False
        ended = any(each.is_committed or each.was_replaced for each in self.loans)
        return ended and self.ends.by_connection

    @property
    def was_replaced(self) -> bool:
        """Whether ROLLBACK has come too late: something else had ended it."""
        return any(loan.was_replaced for loan in self.loans)

    @property
    def may_be_lost(self) -> bool:
        """Whether an error may have lost the work: then the server is queried."""
        if self.ends.savepoints is not None and self.ends.savepoints.are_lost:
            return True
        for loan in self.loans:
            if loan.failure is not None:
                return True
        for connection in self.connections:
            if connection.invalidated:
                return True
        for connection, root in self.ends.roots:  # as `by_connection`
            if connection.get_transaction() is not root:
                return True
        return not self.sync_session.is_active
