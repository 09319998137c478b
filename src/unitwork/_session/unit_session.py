"""The session of a unit, and the connections that its transaction uses."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session

from .._driver.sqlalchemy_internals import close_if_empty, has_pending
from .._engine.begin import STATEMENT, BindCache, TransactionCharacteristics
from .._transaction.commit_status import PendingVerification
from .._transaction.connection_state import state_of
from .._transaction.hold import NO_USE, Hold, use_of
from .._transaction.loan import Loan
from .activity import Activity
from .opening import Opening
from .owner import SessionOwner
from .permit import Permit
from .replica_reading import ReplicaReading
from .session_access import SessionAccess
from .state import Access, CommitState
from .transaction_ends import TransactionEnds
from .transaction_evidence import TransactionEvidence

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["UnitSession", "unit_session_of"]

_OPEN, _CLOSED, _NOT_SENT = Access.OPEN, Access.CLOSED, CommitState.NOT_SENT
_MOST_HOLDS = 50


class UnitSession(TransactionEvidence, SessionAccess):
    """One session, for as long as its unit lasts; its `owner` decides how it ends.

    Used by one task or thread at a time, as SQLAlchemy's own sessions are. Only
    `release_permit()` and `abort_connections()` may be called at any time.
    """

    __slots__ = (
        "awaiting_connection",
        "begun_with",
        "binds",
        "commit_state",
        "committing",
        "connections",
        "defers_write_lock",
        "ends",
        "goes_on_with",
        "has_begun",
        "holds",
        "kept_for_stream",
        "loans",
        "name",
        "owned",
        "prepares_transactions",
        "reading",
        "releases_reads",
        "session",
        "settings",
        "use_before",
        "verifications",
    )

    def __init__(
        self,
        session: Session | AsyncSession,
        owner: SessionOwner[UnitSession],
        name: str,
        opening: Opening,
        owned: bool = True,
    ) -> None:
        self.session = session
        sync = session if isinstance(session, Session) else session.sync_session
        self.sync_session: Session = sync
        self.is_async = session is not sync
        self.owner, self.name = owner, name
        self.settings, gate, binds, _ = opening
        self.owned = owned  # else it was given by a test, and stays open
        self.access = _OPEN
        self.outside_of = ""  # the name of the `outside()` block
        self.commit_state = _NOT_SENT
        self.ends = TransactionEnds()
        self.connections: list[Connection] = []
        self.loans: list[Loan] = []  # of its connections, in the same order
        self.activity = Activity(self.loans)
        self.holds: list[Hold] = []  # of connections that it has returned
        self.use_before = NO_USE  # all those before
        self.verifications: list[PendingVerification] = []  # if COMMIT is not answered
        self.begun_with: TransactionCharacteristics | None = None
        self.committing: Loan | None = None  # of several, whose COMMIT is next
        self.kept_for_stream = False  # its transaction lasts as long as the response
        self.awaiting_connection = False
        self.permit = None if gate is None else Permit(gate)
        self.binds: BindCache | None = binds
        self.goes_on_with: Engine | None = None  # further statements use it as it is
        self.has_begun = not owned  # else there is nothing to reset
        self.prepares_transactions = binds is not None and binds.has_defaults
        self.releases_reads = binds is not None and binds.release == STATEMENT
        self.defers_write_lock = binds is not None and binds.defers_write_lock
        self.reading: ReplicaReading | None = None  # for databases with replicas
        sync.unitwork_session = self  # type: ignore[attr-defined]  # a test's own has it as well

    # The state of its transaction

    @property
    def has_work(self) -> bool:
        """Whether there is something to commit or roll back.

        What is added beside a COMMIT that is under way belongs to no transaction yet.
        """
        session = self.sync_session
        undone = self.ends.rolled_back is not None  # see `is_being_returned`
        return undone or session.in_transaction() or has_pending(session)

    @property
    def holds_connection(self) -> bool:
        """Whether it keeps a connection from others, or the permit for one."""
        return (self.in_transaction and bool(self.connections)) or self.holds_permit

    def connections_released(self) -> None:
        """Drop the connections: the next statement connects, and begins, again."""
        self._let_go_of_connections()
        self.verifications = []
        self.ends.reset()
        self.release_permit()

    def close(self) -> None:
        """Refuse all further work. No I/O: nothing is open, or it is discarded."""
        self.access = _CLOSED
        session = self.sync_session
        if self.owned and not close_if_empty(session) and not session.in_transaction():
            session.close()
        if self.permit is not None:
            self.permit.release()
        self._let_go_of_connections()
        self.ends.reset()
        if not self.owned:
            session.unitwork_session = None  # type: ignore[attr-defined]  # see above
        # The session refers to this: a circle would be left to the garbage collector.
        del self.session, self.sync_session

    def begin(self) -> None:
        """Reset the state of the transaction, and acquire a permit for it."""
        if self.commit_state is CommitState.SENT_BY_APPLICATION:
            self.owner.user_commit_failed()
        if self.connections or self.loans:
            self._let_go_of_connections()
            self.ends.reset()
        self.verifications, self.kept_for_stream = [], False
        self.commit_state = _NOT_SENT
        self.ends.commit_undone = self.ends.has_read = False
        if self.permit is None or self.is_async or self.was_released:
            return  # it waits when it connects
        before, self.awaiting_connection = self.awaiting_connection, True
        if self.permit.acquire_in_thread():
            self.check_permit()
        self.awaiting_connection = before

    def _let_go_of_connections(self) -> None:
        """Leave the COMMITs of a connection that outlives this to its owner."""
        for loan in self.loans:
            loan.holder = None
            if (hold := loan.hold) is not None:
                self.holds.append(hold)
                if hold.returned_at is None:
                    hold.returned()  # the connection was invalidated, or is shared
        if len(self.holds) > _MOST_HOLDS:
            self.use_before = use_of(self.holds, self.use_before)
            self.holds.clear()
        self.connections.clear()
        self.loans.clear()

    def commit_sent(self) -> None:
        """Record that the unit sends COMMIT, not the application."""
        self.commit_state = CommitState.SENT_BY_UNIT

    def commit_ended(self) -> None:
        """Record that the outcome of the unit's COMMIT is known."""
        self.commit_state = _NOT_SENT
        self.verifications = []

    def abort_connections(self) -> None:
        """Abort the connections: a statement under way on them fails. No I/O."""
        for connection in self.connections:
            with suppress(InvalidRequestError):  # closed by its thread meanwhile
                if (state := state_of(connection)) is not None:
                    state.abort()


def unit_session_of(session: Any) -> UnitSession | None:
    """The unit session of a SQLAlchemy `Session`; `None` if it belongs to no unit."""
    found: UnitSession | None = getattr(session, "unitwork_session", None)
    return found
