"""What an executed statement has done to its transaction. No I/O, but on MySQL."""

from __future__ import annotations

from typing import Any
from weakref import ref

from .._driver.driver_connection import in_transaction
from .._driver.mysql_status import commits_each
from .._driver.sqlalchemy_internals import is_autocommit
from .._sql.statement_facts import StatementFacts
from .._sql.write_detection import known_to_read, known_to_write
from .executed_text import first_text_executed, text_executed
from .loan import Loan, TransactionState
from .write_evidence import REPORTS_WRITES

__all__ = ["MOST_TEXTS", "note_effects"]

MOST_TEXTS = 1000
"""How many of its statements a loan keeps."""
_OPEN = TransactionState.OPEN


def note_effects(
    loan: Loan, statement: str, context: Any, facts: StatementFacts
) -> None:
    """Record whether *statement* has written, or opened a server-side cursor."""
    if loan.state is not _OPEN and not loan.is_open:
        if loan.has_guard:
            first_text_executed(loan, statement, context)
        if in_transaction(loan.driver_connection):
            loan.has_begun()
        elif commits_each(loan.driver_connection) and not is_autocommit(
            context.root_connection
        ):
            loan.move(TransactionState.REPLACED)
    elif facts.may_end_transaction:
        text_executed(loan, statement, context)
    if not loan.wrote:
        if len(loan.texts) < MOST_TEXTS:
            loan.texts[statement] = None
        writes = facts.writes
        if writes is None or (context.compiled is not None and not context.is_text):
            writes = known_to_write(context, statement)
        if writes:
            loan.wrote = True
        if loan.only_reads and (
            loan.wants_position or context.dialect.name not in REPORTS_WRITES
        ):
            loan.only_reads = known_to_read(context, statement)
    options = context.execution_options
    if options and (options.get("stream_results") or options.get("yield_per")):
        loan.server_side_cursor = ref(context)
