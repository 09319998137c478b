"""COMMIT of a unit's connection: it is sent by the session, which reads the answer.

All COMMITs pass here: those of a unit, `session.commit()`, `session.begin()` and
`connection.commit()`. SQLAlchemy has no event for the answer, so a method of the
dialect is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .._driver.asyncpg_commit import can_commit, commit, is_idle
from .._driver.driver_connection import in_transaction
from .._driver.gtids import LogPosition
from .._driver.mysql_status import last_warnings, refresh_status
from .._driver.postgresql_begin import DRIVERS
from .._driver.postgresql_end import Answer, CommittedAt, end
from .._driver.postgresql_messages import fetch_value
from .._driver.wal_position import position_query, read_wal_position
from .._sql.sql_text import MYSQL
from ..errors import UnexpectedRollbackError
from . import transaction_guard
from .commit_status import Mark
from .connection_state import INFO_KEY, ConnectionState
from .loan import Loan, TransactionState
from .loan_holder import LoanHolder
from .lost_work import check_before_commit, ended_elsewhere, unexpected_rollback
from .mariadb_position import fetch_committed, is_mariadb
from .statements_beside import wait_for_statements

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["CommitSender", "is_replaced", "listen", "sender_of"]

log = logging.getLogger("unitwork")

_OPEN = TransactionState.OPEN
_COMMITTED = TransactionState.COMMITTED
_IN_TWO_PHASES = TransactionState.IN_TWO_PHASES
_NOT_OPEN = (TransactionState.COMMITTED, TransactionState.NONE)
_NOT_UNDONE = (
    "a ROLLBACK has not undone everything: tables without transactions were changed "
    "(MyISAM, Aria, MEMORY)"
)
_STILL_EXECUTED = (
    "the work of this unit is lost: a statement of another task or thread was not over "
    "within `end_timeout` when its COMMIT was due. Wait for all tasks and threads "
    "that use the session, or give them units of their own: `db.transaction()`"
)


class CommitSender:
    """The `do_commit()` of one dialect, and so of one pool."""

    __slots__ = ("_dialect", "_is_asyncpg", "_is_sqlite", "_own", "send")

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._is_asyncpg = dialect.driver == "asyncpg"
        self._is_sqlite = dialect.name == "sqlite"
        self.send: Callable[[Any], None] = dialect.do_commit
        """SQLAlchemy's own `do_commit()`; replaced by a test that lets COMMIT fail."""
        self._own = self.send

    def __call__(self, dbapi_connection: Any) -> None:
        loan = _loan_of(dbapi_connection)
        if loan is None or loan.holder is None:
            self.send(dbapi_connection)
            return
        if loan.proxy is not None and loan.proxy() is not dbapi_connection:
            loan.ended_by_another(TransactionState.REPLACED)
            self.send(dbapi_connection)
            return
        if self._is_asyncpg and self._send_plainly(dbapi_connection, loan, loan.holder):
            return
        if self._is_sqlite and not wait_for_statements(dbapi_connection, loan):
            raise UnexpectedRollbackError(_STILL_EXECUTED)
        send = partial(self._send_for_unit, dbapi_connection, loan)
        report = None if loan.hold is None else loan.hold.report
        # The coordinator of two phases reports both.
        if report is not None and loan.state is not _IN_TWO_PHASES:
            send = partial(report.commit, send)
        loan.holder.send_commit(loan, send)

    def _send_plainly(
        self, dbapi_connection: Any, loan: Loan, holder: LoanHolder[Loan]
    ) -> bool:
        """Send the COMMIT of a unit to which nothing has to be added, as most are.

        Returns `False` if that has to be looked at more closely. Then nothing was sent.
        """
        adapter, driver = dbapi_connection.dbapi_connection, loan.driver_connection
        if (
            loan.state is not _OPEN
            or self.send is not self._own
            or loan.wants_position
            or loan.bypassed_by + loan.counter.queries_count > loan.messages
            or (loan.hold is not None and loan.hold.report is not None)
            or not can_commit(adapter, driver)
            or not holder.is_committed_by_unit()
        ):
            return False
        if not loan.ended_by(partial(commit, adapter, driver)):
            raise unexpected_rollback(loan.failure) from loan.failure
        loan.move(_COMMITTED)
        return True

    def _send_for_unit(self, dbapi_connection: Any, loan: Loan) -> None:
        """Send COMMIT; raise unless the database has stored the work."""
        loan.may_be_another = loan.mark is not None and loan.is_unidentified
        check_before_commit(loan, self._dialect, dbapi_connection.dbapi_connection)
        wanted = _position_of(loan) if _stores(loan) else None
        answer = _end(dbapi_connection, loan, self.send, wanted)
        if answer is Answer.REPLACED:
            raise ended_elsewhere()
        if answer is Answer.ABORTED:
            if loan.may_be_another:
                _check_replaced(loan)
            if loan.was_replaced:
                raise ended_elsewhere()
            raise unexpected_rollback(loan.failure) from loan.failure
        loan.move(TransactionState.COMMITTED)
        if loan.wants_position and loan.holder is not None:
            if wanted is not None and wanted.value is None:
                wanted.value = self._fetch_position(dbapi_connection, loan)
            loan.holder.committed_at(wanted)

    def _fetch_position(self, dbapi_connection: Any, loan: Loan) -> LogPosition | None:
        """The position of what was just committed, in a round trip of its own."""
        dialect = self._dialect
        if is_mariadb(dialect):
            return fetch_committed(dbapi_connection, loan)
        if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
            return None
        try:
            found = fetch_value(loan.driver_connection, position_query(None))
            return read_wal_position(found or "", None)
        except Exception:  # it is committed, whatever happens to the connection now
            return None


def _stores(loan: Loan) -> bool:
    """Whether it may have written what the replicas have to replay."""
    if not loan.wants_position:
        return False
    return loan.wrote or not loan.only_reads or loan.was_bypassed


def _position_of(loan: Loan) -> CommittedAt:
    if not isinstance(loan.mark, Mark):
        return CommittedAt(None, None)
    return CommittedAt(loan.mark.txid, loan.mark.installation.system)


def listen(dialect: Dialect) -> None:
    """Watch the COMMITs and ROLLBACKs of *dialect*; call this once."""
    roll_back = dialect.do_rollback
    is_postgresql, is_mysql = dialect.name == "postgresql", dialect.name in MYSQL
    is_asyncpg, is_sqlite = dialect.driver == "asyncpg", dialect.name == "sqlite"

    def do_rollback(dbapi_connection: Any) -> None:
        loan = _loan_of(dbapi_connection)
        if loan is None:
            roll_back(dbapi_connection)
            return
        if loan.proxy is not None and loan.proxy() is not dbapi_connection:
            loan.ended_by_another(TransactionState.LOST)
            roll_back(dbapi_connection)
            return
        ours = loan.holder is not None
        if is_sqlite and ours and not wait_for_statements(dbapi_connection, loan):
            return
        nothing_open = is_postgresql and loan.state in _NOT_OPEN
        if nothing_open and is_asyncpg:
            adapter = dbapi_connection.dbapi_connection
            if is_idle(adapter, loan.driver_connection):
                return  # SQLAlchemy would send nothing
        if nothing_open and not in_transaction(loan.driver_connection):
            roll_back(dbapi_connection)  # which sends nothing
            return
        was_open = ours and (loan.is_open or loan.has_guard)
        had_ended = was_open and _has_ended(dialect, dbapi_connection, loan)
        try:
            answer = _end(dbapi_connection, loan, roll_back)
        except BaseException:
            if was_open:  # another task may be about to commit it
                loan.move(TransactionState.LOST)
            raise
        if had_ended or answer is Answer.ABORTED:
            _check_replaced(loan)
        if is_mysql and ours and last_warnings(loan.driver_connection):
            loan.has_stored = True
            log.warning(_NOT_UNDONE)

    setattr(dialect, "do_commit", CommitSender(dialect))  # noqa: B010  # its method
    setattr(dialect, "do_rollback", do_rollback)  # noqa: B010


def _has_ended(dialect: Dialect, dbapi_connection: Any, loan: Loan) -> bool:
    """Whether something else has ended the transaction.

    A statement that has failed in the driver of MySQL may have committed before.
    """
    if transaction_guard.is_replaced(dialect, dbapi_connection, loan):
        return True
    if loan.was_bypassed:
        refresh_status(dialect, dbapi_connection)
    return loan.has_ended


def _end(
    dbapi_connection: Any,
    loan: Loan,
    send: Callable[[Any], None],
    position: CommittedAt | None = None,
) -> Answer:
    """Send COMMIT or ROLLBACK for *loan*, and in doubt a check that goes with it."""
    pooled = dbapi_connection.dbapi_connection
    send_it = partial(send, dbapi_connection)
    expected = None if loan.mark is None else _expected(loan)
    answer = loan.ended_by(partial(end, pooled, send_it, expected, position))
    if answer is Answer.REPLACED:
        loan.move(TransactionState.REPLACED)
    return answer


def _expected(loan: Loan) -> int | None:
    """The id of the transaction that must still be open, where that is in doubt."""
    if not loan.is_open or loan.holder is None or not isinstance(loan.mark, Mark):
        return None
    return loan.mark.txid if loan.was_bypassed else None


def is_replaced(loan: Loan) -> bool:
    """Whether another transaction is open than the one that began.

    PostgreSQL is queried, where the driver may have done that.
    """
    expected = _expected(loan)
    if expected is None:
        return loan.was_replaced
    query = "SELECT txid_current_if_assigned()"
    return fetch_value(loan.driver_connection, query) != str(expected)


def _check_replaced(loan: Loan) -> None:
    """After a ROLLBACK find out whether it came too late, for an earlier COMMIT."""
    status = None
    if isinstance(loan.mark, Mark):
        query = f"SELECT txid_status({loan.mark.txid})"
        loan.statements_in_flight += 1  # the end of the unit waits for the answer
        try:
            with suppress(Exception):  # not known then: it is reported as unknown
                status = fetch_value(loan.driver_connection, query)
        finally:
            loan.statements_in_flight -= 1
    if status != "aborted":
        loan.move(TransactionState.REPLACED)


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
