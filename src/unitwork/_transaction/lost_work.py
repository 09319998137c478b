"""Whether the work of a transaction is lost, by its driver; and the errors for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._driver.driver_connection import in_error, in_transaction
from .._driver.mysql_status import has_more_results, last_command_failed
from .._driver.sqlite_connection import is_closed_sqlite
from .._sql.sql_text import MYSQL
from ..errors import (
    CommitUnknownError,
    PartialCommitError,
    UnexpectedRollbackError,
    UsageError,
)
from .loan import TransactionState
from .transaction_guard import is_replaced

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from .loan import Loan

__all__ = [
    "check_before_commit",
    "commit_unknown",
    "ended_elsewhere",
    "no_commit",
    "partial_commit",
    "unexpected_rollback",
]

_MAY_HAVE_ENDED = (
    TransactionState.OPEN,
    TransactionState.CONTINUED,
    TransactionState.REPLACED,
)


def unexpected_rollback(error: BaseException | None) -> UnexpectedRollbackError:
    """Make the error to raise in place of a COMMIT that would store nothing.

    *error* is the one that was swallowed, if it is known.
    """
    made = UnexpectedRollbackError(_lost_by(error))
    made.__cause__ = error
    return made


def _lost_by(error: BaseException | None) -> str:
    if error is None or isinstance(error, CommitUnknownError):
        return (
            "the work of this unit is lost: it was rolled back, because an error was "
            "caught and not raised again, or by a ROLLBACK that was sent as SQL or "
            "through the driver's connection. Let errors propagate, or run the risky "
            "part in a savepoint: `session.begin_nested()`. To roll back call "
            "`session.rollback()`"
        )
    return (
        f"the work of this unit is lost: {type(error).__name__} was caught and not "
        "raised again, and nothing can be committed after it. Let the error propagate, "
        "or run the risky part in a savepoint: `session.begin_nested()`"
    )


def ended_elsewhere() -> CommitUnknownError:
    """Make the error for a transaction that SQL or the driver has ended."""
    return CommitUnknownError(
        "a COMMIT or ROLLBACK that was sent as SQL or through a connection has ended "
        "the transaction: what it wrote may be stored or not. Use `session.commit()` "
        "and `session.rollback()`"
    )


def no_commit(reason: str) -> UsageError:
    """Make the error for the application's COMMIT after `rollback_only()`."""
    return UsageError(
        f"session.commit() would store what is to be rolled back ({reason}): leave it "
        "out, the unit commits or rolls back at its end"
    )


def commit_unknown() -> CommitUnknownError:
    """Make the error for a COMMIT without an answer that can't be verified."""
    return CommitUnknownError(
        "the connection was lost during COMMIT: the work may be stored or not; check "
        "that before trying again"
    )


def partial_commit(
    committed: Sequence[str],
    *,
    rolled_back: Sequence[str] = (),
    unknown: Sequence[str] = (),
    advice: str = "check that before trying again",
) -> PartialCommitError:
    """Make the error; its message lists the outcome of each database."""
    outcomes = {
        "committed": committed,
        "rolled back": rolled_back,
        "unknown": unknown,
    }
    listed = "; ".join(
        f"{outcome}: {', '.join(map(repr, names))}"
        for outcome, names in outcomes.items()
        if names
    )
    return PartialCommitError(
        f"only a part of this unit is stored ({listed}); {advice}",
        committed=tuple(committed),
        rolled_back=tuple(rolled_back),
        unknown=tuple(unknown),
    )


def check_before_commit(
    loan: Loan, dialect: Dialect, dbapi_connection: DBAPIConnection
) -> None:
    """Raise unless COMMIT can store the work, as far as the driver knows.

    `UnexpectedRollbackError` if the database has rolled it back, or is going to;
    `CommitUnknownError` if the transaction is over already. No I/O, except where the
    driver of MySQL has had an error, or has results to read: its status is that of an
    answer before.
    """
    driver = loan.driver_connection
    if loan.state is TransactionState.LOST and _lost_nothing(loan):
        return
    # asyncpg does not know it.
    aborted = dialect.driver != "asyncpg" and in_error(driver)
    if aborted or loan.state is TransactionState.LOST:
        raise unexpected_rollback(loan.failure) from loan.failure
    if loan.has_failed_late:
        _check_failed_late(loan, dialect, dbapi_connection)
    if loan.state not in _MAY_HAVE_ENDED:
        return
    if dialect.name in MYSQL:
        if is_replaced(dialect, dbapi_connection, loan):
            loan.move(TransactionState.REPLACED)
        elif loan.failure or last_command_failed(driver) or has_more_results(driver):
            dialect.do_ping(dbapi_connection)
    # SQLAlchemy would send nothing: so does its adapter of asyncpg if it was closed.
    closed = getattr(dbapi_connection, "_transaction", driver) is None
    if dialect.name == "sqlite":
        closed = is_closed_sqlite(driver)
    if not closed and loan.state is TransactionState.OPEN and in_transaction(driver):
        return
    if closed or loan.has_ended:
        raise ended_elsewhere()


def _check_failed_late(
    loan: Loan, dialect: Dialect, dbapi_connection: DBAPIConnection
) -> None:
    """Raise for an error that nothing has raised, unless a savepoint has undone it."""
    if is_replaced(dialect, dbapi_connection, loan):
        loan.move(TransactionState.REPLACED)
        raise ended_elsewhere()
    if loan.failure is not None:
        raise unexpected_rollback(loan.failure) from loan.failure


def _lost_nothing(loan: Loan) -> bool:
    """Whether another user of a shared connection has rolled back what only read."""
    if loan.proxy is None or loan.failure is not None:
        return False
    return not loan.may_have_written
