"""Statement events: records which are in flight, have written, or have failed.

Without I/O, except after an error that may have ended a transaction of MySQL.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
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
from .._sql.read_only import only_reading, refused_in_autocommit
from .._sql.sql_text import MYSQL
from .._sql.transaction_control import End, end_by, may_commit
from ..errors import (
    CommitUnknownError,
    ReadOnlyError,
    SessionEndedError,
    UsageError,
)
from .connection_state import INFO_KEY, ConnectionState, loan_of
from .demotion import refuses_to_write
from .hold import Hold
from .loan import Loan, TransactionState
from .lost_work import ended_elsewhere, unexpected_rollback
from .session_reset import note_traces
from .statement_release import execute_first
from .unit_begin import prepare_first_statement

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

__all__ = ["listen"]

_BEING_ENDED = (
    "the transaction of this connection is being committed or rolled back, by another "
    "task or thread; await what you start before its transaction ends"
)
_IDLE = (
    "the transaction was idle for {:.1f} seconds, more than idle_limit={:g}, and is "
    "rolled back: make slow calls inside `unit.outside()`, before the first statement, "
    "or after the last one"
)
_REFUSED = IllegalStateChangeError | SessionEndedError | CommitUnknownError
_READ_ONLY = {("postgresql", "25006"), ("mysql", 1792), ("sqlite", 8)}


def listen(engine: Engine) -> None:
    """Keep the state of *engine*'s connections up to date.

    By dialect events: for those of the connection SQLAlchemy would join two dispatchers
    for each connection, which costs more than everything that unitwork does.
    """
    dialect = engine.dialect
    event.listen(engine, "do_execute", _executing(dialect.do_execute))
    event.listen(engine, "do_executemany", _executing(dialect.do_executemany))
    event.listen(engine, "do_execute_no_params", _execute_without_parameters)
    event.listen(engine, "handle_error", _handle_error)


def _executing(execute: Callable[..., None]) -> Callable[..., bool]:
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        loan = _loan_in(context)
        if loan is None:
            return False
        loan.begin_statement()  # before the checks: see `Activity`
        now = monotonic()
        if (hold := loan.hold) is not None and hold.idle_since is not None:
            hold.statement, idle = statement, now - hold.idle_since
            hold.idle, hold.idle_since = hold.idle + idle, None
            statement += hold.comment
            hold.longest_idle = max(hold.longest_idle, idle)
        try:
            _check(loan, context, statement)
            if hold is not None and hold.longest_idle > hold.idle_limit:
                _refuse_idle(loan, hold, statement)
            if loan.holder is not None:
                note_traces(context, statement, parameters)
            if loan.undecided is not None:
                args = statement, parameters
                cursor = execute_first(execute, loan, cursor, args, context)
                if cursor is None:
                    return True
            if loan.begun_with_id:
                prepare_first_statement(context.root_connection, loan, statement)
            statement = loan.statement_prefix + statement
            if loan.client_side_read_only:
                with only_reading(context, statement):
                    execute(cursor, statement, parameters, context)
            else:
                execute(cursor, statement, parameters, context)
        finally:
            loan.end_statement(statement)
            if hold is not None:
                hold.idle_since = monotonic()
                if hold.report is not None:
                    hold.report.executed(hold.idle_since - now, context, statement)
        loan.statement_executed(statement, context)
        return True  # it has been executed

    return do_execute


def _refuse_idle(loan: Loan, hold: Hold, statement: str) -> None:
    """Raise `UsageError`, unless *statement* undoes something: the work is lost."""
    if loan.is_open and not statement.startswith(("ROLLBACK", "RELEASE")):
        loan.move(TransactionState.LOST)
        raise UsageError(_IDLE.format(hold.longest_idle, hold.idle_limit))


def _check(loan: Loan, context: Any, statement: str) -> None:
    """Raise unless *statement* would be a part of the transaction of *loan*."""
    holder, state = loan.holder, loan.state
    if holder is not None:
        holder.check_statement()
        if loan.savepoints is not None:
            loan.savepoints.note_statement(statement, context)
    if state is TransactionState.ENDING:  # another task or thread waits for the answer
        raise IllegalStateChangeError(_BEING_ENDED)
    if state is TransactionState.LOST:  # or it would begin a transaction of its own
        raise unexpected_rollback(loan.failure) from loan.failure
    if loan.statements_in_flight > 1:
        return  # the answer of the driver would wait for the other statement
    if holder is None:
        return
    if state is TransactionState.OPEN and in_transaction(loan.driver_connection):
        return
    if loan.has_ended:
        raise ended_elsewhere()


def _execute_without_parameters(cursor: Any, statement: str, context: Any) -> bool:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        context.dialect.do_execute_no_params(cursor, statement, context)

    return _executing(execute)(cursor, statement, None, context)


def _loan_in(context: Any) -> Loan | None:
    try:
        proxy = context.root_connection.connection
        info = proxy.info
    except NotImplementedError:  # SQLAlchemy's first connection, in initialize()
        return None
    state: ConnectionState | None = info.get(INFO_KEY)
    if state is None:
        return None
    loan = state.loan
    if loan.proxy is not None and loan.proxy() is not proxy:
        return None
    return loan


def _handle_error(failure: ExceptionContext) -> BaseException | None:
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
    if not loan.client_side_read_only and not is_autocommit(connection):
        statement = failure.statement or ""
        _record_failure(loan, connection, refused or error, statement)
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
        loan.move(TransactionState.LOST)


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
