"""Sends each COMMIT of a session: that of its unit, or `session.commit()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.util import await_only, greenlet_spawn

from .._classify.classification import Phase, classify
from .._concurrency.shield import uninterrupted
from .._driver.driver_connection import in_transaction
from .._driver.postgresql_end import CommittedAt
from .._transaction.loan import Loan, TransactionState
from .._transaction.lost_work import commit_unknown, partial_commit
from .._transaction.savepoints import OpenSavepoints
from ..errors import CommitUnknownError, PartialCommitError
from .savepoint import savepoints_of
from .state import Access, CommitState, CommitWithdrawn

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .replica_reading import ReplicaReading
    from .unit_session import UnitSession

__all__ = ["ServedSession", "in_doubt"]

_OPEN = Access.OPEN
_SENT_BY_UNIT = CommitState.SENT_BY_UNIT


def in_doubt(error: BaseException) -> bool:
    """Whether the work may be stored although COMMIT has raised *error*."""
    if isinstance(error, CommitUnknownError):
        return True
    return classify(error, phase=Phase.COMMIT).unknown


class ServedSession:
    """The session that holds a loan. It sends its COMMITs in the order of its loans.

    SQLAlchemy commits the connections of a session in the order of a set.
    """

    __slots__ = ("session",)

    session: UnitSession  # set by its maker: an `__init__()` would be one call more

    def send_commit(self, loan: Loan, send: Callable[[], None]) -> None:
        """Commit the transaction of *loan* by *send*; raise unless it is committed.

        The first call commits all connections; raises `PartialCommitError` if one of
        them fails after another one has been committed.
        """
        session = self.session
        committed = loan.state is not TransactionState.OPEN and loan.is_committed
        if committed and not in_transaction(loan.driver_connection):
            return  # together with the first one
        if len(session.loans) == 1 or session.committing is loan:
            _send_one(session, loan, send)
            return
        try:
            self._send_all(loan, send)
        finally:
            session.committing = None

    def is_committed_by_unit(self) -> bool:
        """Whether its unit sends its only COMMIT; raise if that is withdrawn."""
        session = self.session
        if session.commit_state is not _SENT_BY_UNIT or len(session.loans) != 1:
            return False
        if session.reading is not None:
            return False
        if session.owner.withdraws_commit:  # by a listener to `before_commit`
            raise CommitWithdrawn
        return True

    def check_statement(self) -> None:
        """Raise unless a statement may be executed now."""
        session = self.session
        if session.access is not _OPEN or session.activity.is_reserved:
            session.check_statement()

    def open_savepoints(self) -> OpenSavepoints:
        return savepoints_of(self.session)

    def savepoint_undone(self, savepoint: object) -> None:
        self.session.owner.savepoint_undone(savepoint)

    def describe(self) -> str:
        return self.session.owner.owner.description

    def committed_by_statement(self) -> None:
        """A later failure undoes only what comes after it; no hook runs before."""
        self.session.owner.user_committed(self.session)

    def committed_at(self, position: CommittedAt | None) -> None:
        """Record it, or that nothing was stored whose position matters."""
        reading = self.session.reading
        if position is not None:
            self.session.owner.write_committed(self.session, position.value)
        elif reading is not None:
            reading.position_is_due = False

    def _send_all(self, loan: Loan, send: Callable[[], None]) -> None:
        session = self.session
        committed: list[str] = []
        try:
            for position, connection in enumerate(session.connections):
                this = session.committing = session.loans[position]
                if this is loan:
                    _send_one(session, loan, send)
                else:  # which leads back to here
                    connection.dialect.do_commit(connection.connection)
                committed.append(_name(session, connection))
        except Exception as error:
            if not committed:
                raise
            rest = session.connections[len(committed) :]
            partial_error = _partial(session, committed, rest, error)
            session.owner.commit_unclear(partial_error)
            raise partial_error from error


def _partial(
    session: UnitSession,
    committed: Sequence[str],
    rest: Sequence[Connection],
    error: Exception,
) -> PartialCommitError:
    names = [_name(session, connection) for connection in rest]
    unknown = names[:1] if in_doubt(error) else []
    return partial_commit(committed, rolled_back=names[len(unknown) :], unknown=unknown)


def _send_one(session: UnitSession, loan: Loan, send: Callable[[], None]) -> None:
    reading = session.reading
    if reading is not None and reading.engine is not None and loan.read_only:
        send = partial(_send_to_replica, session, reading, loan, send)
    if session.commit_state is _SENT_BY_UNIT:
        if session.owner.withdraws_commit:  # a listener to `before_commit`
            raise CommitWithdrawn
        send()  # the plan of the unit does the rest
    elif session.is_async:
        settle = partial(_send_and_settle, session, loan, send)
        _send_uninterrupted(session, loan, settle)
    else:
        _send_and_settle(session, loan, send)


def _send_to_replica(
    session: UnitSession, reading: ReplicaReading, loan: Loan, send: Callable[[], None]
) -> None:
    """Send the COMMIT of a transaction that has only read.

    It can store nothing, and what was read is valid. So if its connection is lost, that
    is no failure.
    """
    try:
        send()
    except Exception as error:
        if not classify(error).disconnected:
            raise
        reading.replica_failed(error)
        loan.move(TransactionState.COMMITTED)
        session.connections[session.loans.index(loan)].invalidate()


def _send_and_settle(
    session: UnitSession, loan: Loan, send: Callable[[], None]
) -> None:
    """Send a COMMIT of the application; if its reply is lost, query the database."""
    try:
        send()
    except Exception as error:
        if not in_doubt(error):
            raise
        committed = session.owner.settle_commit(session)
        if committed is None:
            unknown = commit_unknown()
            session.owner.commit_unclear(unknown)
            raise unknown from error
        if not committed:
            session.commit_state = CommitState.NOT_SENT
            loan.move(TransactionState.LOST)
            raise
        loan.move(TransactionState.COMMITTED)
        if session.reading is not None:
            session.owner.write_committed(session, None)
        session.connections[session.loans.index(loan)].invalidate()


def _send_uninterrupted(
    session: UnitSession, loan: Loan, send: Callable[[], None]
) -> None:
    """Run *send* in a task of its own: no cancellation can tear a COMMIT in two.

    If COMMIT has succeeded, one that arrived meanwhile is raised once the session has
    ended its transaction, or, if COMMIT was the connection's own, at the next await.
    """
    task = asyncio.current_task()
    try:
        await_only(uninterrupted(greenlet_spawn(send)))
    except asyncio.CancelledError as error:
        if not loan.is_committed or task is None:
            raise
        if session.commit_state is CommitState.SENT_BY_APPLICATION:
            session.ends.cancellation = error
            return
        task.uncancel()
        task.cancel()


def _name(session: UnitSession, connection: Connection) -> str:
    """The name of the database, and which of its engines it is."""
    url = connection.engine.url
    return f"{session.name} ({url.set(username=None, password=None, query={})})"
