"""What a statement that SQLAlchemy has executed may have done to its transaction."""

from __future__ import annotations

from typing import Any

from .._driver.driver_connection import in_transaction
from .._driver.mysql_status import commits_each, has_more_results, refresh_status
from .._sql.sql_text import MYSQL
from .._sql.transaction_control import (
    End,
    begins_another,
    continues_with_another,
    end_by,
)
from .loan import Loan, TransactionState
from .transaction_guard import is_replaced

__all__ = ["first_text_executed", "text_executed"]


def first_text_executed(loan: Loan, statement: str, context: Any) -> None:
    """Record whether *statement*, before which nothing was open, may have committed.

    That is not known of a procedure that returns rows, until they are read.
    """
    if end_by(context.dialect.name, statement) is not End.UNCLEAR:
        loan.has_guard = False
    elif not has_more_results(loan.driver_connection):
        is_replaced(context.dialect, context.root_connection.connection, loan)


def text_executed(loan: Loan, statement: str, context: Any) -> None:
    """Record what *statement*, no ordinary one, has done to the transaction of *loan*.

    No I/O, but for MySQL: its driver's status may be out of date. While it has results
    to read, nothing is known yet.
    """
    dialect = context.dialect.name
    has_ended = False
    if dialect in MYSQL:
        if has_more_results(loan.driver_connection):
            return
        pooled = context.root_connection.connection
        refresh_status(context.dialect, pooled)
        has_ended = loan.has_ended or is_replaced(context.dialect, pooled, loan)
        loan.has_guard = False
        if begins_another(dialect, statement):
            _another_begun(loan)
            return
    if continues_with_another(dialect, statement):
        loan.move(TransactionState.REPLACED)
    if not has_ended and not loan.has_ended:
        return
    end = end_by(dialect, statement)
    if end is End.ROLLBACK:
        loan.move(TransactionState.LOST)
    elif end is End.UNCLEAR:
        loan.move(TransactionState.REPLACED)
    elif dialect in MYSQL and loan.is_open and loan.holder is not None:
        _committed(loan)


def _committed(loan: Loan) -> None:
    """Record that MySQL has committed the transaction; another one may be open."""
    assert loan.holder is not None
    loan.is_over()
    loan.holder.committed_by_statement()
    if commits_each(loan.driver_connection):
        loan.move(TransactionState.REPLACED)
    elif in_transaction(loan.driver_connection):
        loan.has_begun()


def _another_begun(loan: Loan) -> None:
    """Record that MySQL has committed the transaction before it began another one."""
    changed = loan.may_have_written or not loan.only_reads
    if changed and loan.is_open and loan.holder is not None:
        loan.is_over()
        loan.holder.committed_by_statement()
        loan.has_begun()
