"""What a statement that has failed has done to its transaction.

Without I/O, except after an error that may have ended a transaction of MySQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import IllegalStateChangeError

from .._classify.chains import chain_to
from .._classify.classification import (
    STALE,
    Classification,
    Phase,
    classify,
    only_follows,
)
from .._driver.driver_connection import in_transaction
from .._driver.sqlalchemy_internals import is_autocommit
from .._sql.read_only import refused_in_autocommit
from .._sql.sql_text import MYSQL
from .._sql.transaction_control import End, end_by, may_commit, may_store_a_part
from .._sql.write_detection import known_to_read
from ..errors import CommitUnknownError, ReadOnlyError, SessionEndedError
from .connection_state import loan_of
from .demotion import refuses_to_write
from .loan import Loan, TransactionState
from .transaction_guard import is_replaced

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext

__all__ = ["handle_error"]

_REFUSED = IllegalStateChangeError | SessionEndedError | CommitUnknownError
_READ_ONLY = {("postgresql", "25006"), ("mysql", 1792), ("sqlite", 8)}


def handle_error(failure: ExceptionContext) -> BaseException | None:
    """Record a failure; return the error to raise in its place, if there is another.

    SQLAlchemy is made to replace all pooled connections if their server refuses to
    write; and if a cached plan is older than the schema, which psycopg has on all.
    """
    connection = failure.connection
    if connection is None or failure.execution_context is None:
        return None
    loan = loan_of(connection)
    if loan is None:
        return None
    error = failure.sqlalchemy_exception or failure.original_exception
    if isinstance(error, _REFUSED):
        return None  # the statement was refused here, and has changed nothing
    if connection.dialect.driver == "aiosqlite" and not isinstance(error, Exception):
        loan.abandon(failure.statement or "")
    found = classify(error)
    refused = _refusal(found, loan)
    is_stale = found.reason == STALE.reason and connection.dialect.driver != "asyncpg"
    if is_stale or refuses_to_write(found, loan):
        failure.is_disconnect = True
    if loan.undecided is not None:
        return refused  # a read outside of a transaction has lost nothing
    if loan.client_side_read_only:
        return refused
    statement = failure.statement or ""
    if not is_autocommit(connection):
        _record_failure(loan, connection, refused or error, statement)
    elif _has_stored(error, failure.execution_context, statement):
        loan.wrote = True
    return refused


def _refusal(found: Classification, loan: Loan) -> ReadOnlyError | None:
    """The error to raise if the database has refused to write."""
    if (found.family, found.code) not in _READ_ONLY:
        return None
    if loan.client_side_read_only:
        return refused_in_autocommit(found.error)
    if not loan.read_only:
        return None
    return ReadOnlyError(
        "this transaction only reads (read_only=True), and the database has refused to "
        f"write: {found.error}. Set read_only=False where something is written"
    )


def _record_failure(
    loan: Loan, connection: Connection, error: BaseException, statement: str
) -> None:
    if loan.failure is not None and (loan.is_lost or only_follows(error)):
        chain_to(error, loan.failure)
        if connection.dialect.name in MYSQL:
            # A missing savepoint: the transaction has ended; not so in PostgreSQL.
            loan.move(TransactionState.LOST)
        return
    loan.failure = error
    if not connection.in_transaction() or loan.is_lost:
        return
    if loan.state is TransactionState.ABANDONED:
        return
    if _may_be_stored(error, connection.dialect.name, statement):
        if not isinstance(error, Exception) or _is_over(error, connection, loan):
            loan.move(TransactionState.REPLACED)
    elif _is_over(error, connection, loan):
        # What may end a transaction, and has failed otherwise, may have committed it.
        unclear = loan.has_guard and not classify(error).poisons
        loan.move(TransactionState.REPLACED if unclear else TransactionState.LOST)
    if isinstance(error, Exception) and _is_replaced(connection, loan):
        if loan.is_open:
            loan.move(TransactionState.REPLACED)
        elif loan.state is TransactionState.NONE:  # it was the first statement
            loan.has_stored = True


def _has_stored(error: BaseException, context: Any, statement: str) -> bool:
    """Whether *statement*, committed at once, may have stored something all the same.

    Its answer was lost, or it consists of several statements, as a procedure does.
    """
    if known_to_read(context, statement):
        return False
    if context.executemany or not isinstance(error, Exception):
        return True
    if may_store_a_part(context.dialect.name, statement):
        return True
    return classify(error, phase=Phase.COMMIT).unknown


def _may_be_stored(error: BaseException, dialect: str, statement: str) -> bool:
    """Whether *statement*, which has failed, may have committed the transaction."""
    if end_by(dialect, statement) is End.COMMIT and dialect not in MYSQL:
        return (
            not isinstance(error, Exception)
            or classify(error, phase=Phase.COMMIT).unknown
        )
    return may_commit(dialect, statement)


def _is_over(error: BaseException, connection: Connection, loan: Loan) -> bool:
    """Whether the transaction is over: the database has ended it by itself."""
    found = classify(error)
    driver_connection = connection.connection.driver_connection
    if connection.dialect.name in MYSQL:
        return found.poisons or _has_ended(connection, driver_connection)
    if in_transaction(driver_connection):
        return False
    # In legacy mode sqlite3 begins at the first write: before, nothing can be lost.
    legacy = getattr(driver_connection, "isolation_level", None) is not None
    return found.family != "sqlite" or loan.wrote or found.poisons or not legacy


def _is_replaced(connection: Connection, loan: Loan) -> bool:
    """Whether a procedure of MySQL has ended the transaction, and begun another one."""
    if not loan.has_guard or loan.is_lost or loan.was_replaced:
        return False
    try:
        return is_replaced(connection.dialect, connection.connection, loan)
    except connection.dialect.loaded_dbapi.Error:
        return True


def _has_ended(connection: Connection, driver_connection: Any) -> bool:
    """Whether a transaction of MySQL or MariaDB has ended.

    A lock timeout ends it (`innodb_rollback_on_timeout`), and a procedure may roll back
    before it fails. An error packet has no transaction status; that of a ping has.
    """
    if not in_transaction(driver_connection):  # before the error, that is
        return False
    pooled = connection.connection.dbapi_connection
    try:
        connection.dialect.do_ping(pooled)  # type: ignore[arg-type]  # it is open
    except connection.dialect.loaded_dbapi.Error:
        return True
    return not in_transaction(driver_connection)
