"""Statement events: records which are in flight, and what they have done.

Without I/O of their own, except after an error: see `statement_errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import IllegalStateChangeError

from .._sql.read_only import only_reading
from .._sql.statement_facts import LONG, StatementFacts, facts_of, known_facts
from ..errors import UsageError
from .connection_state import INFO_KEY, ConnectionState
from .hold import Hold
from .loan import Loan, TransactionState
from .loan_holder import LoanHolder
from .lost_work import ended_elsewhere, unexpected_rollback
from .session_reset import note_traces
from .statement_effects import note_effects
from .statement_errors import handle_error
from .statement_release import execute_first
from .transaction_guard import is_replaced, set_guard
from .unit_begin import prepare_first_statement

if TYPE_CHECKING:
    from sqlalchemy import Engine

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
Execute = Callable[..., None]
_OPEN = TransactionState.OPEN


def listen(engine: Engine) -> None:
    """Keep the state of *engine*'s connections up to date.

    By dialect events: for those of the connection SQLAlchemy would join two dispatchers
    for each connection, which costs more than everything that unitwork does.
    """
    dialect = engine.dialect
    event.listen(engine, "do_execute", _executing(dialect.do_execute))
    event.listen(engine, "do_executemany", _executing(dialect.do_executemany))
    event.listen(engine, "do_execute_no_params", _execute_without_parameters)
    event.listen(engine, "handle_error", handle_error)


def _executing(execute: Execute) -> Callable[..., bool]:
    def do_execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        try:
            proxy = context.root_connection.connection
            state: ConnectionState | None = proxy.info.get(INFO_KEY)
        except NotImplementedError:  # SQLAlchemy's first connection, in initialize()
            return False
        if state is None:
            return False
        loan = state.loan
        if loan.proxy is not None and loan.proxy() is not proxy:
            return False
        template = statement
        compiled = context.compiled
        if compiled is not None and statement is context.statement:
            template = compiled.string or statement  # the same for many
        find = known_facts if len(template) <= LONG else facts_of
        facts = find(context.dialect.name, template)
        _execute(execute, loan, facts, cursor, statement, parameters, context)
        return True  # it has been executed

    return do_execute


def _execute(
    execute: Execute,
    loan: Loan,
    facts: StatementFacts,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
) -> None:
    """Execute a statement by *execute*, and record what it does to its *loan*.

    It is the most frequent of all calls: what most statements need is in it.
    """
    loan.bypassed_by += loan.counter.queries_count - loan.messages
    loan.statements_in_flight += 1  # before the checks: see `Activity`
    now = monotonic()
    if (hold := loan.hold) is not None and hold.idle_since is not None:
        idle = now - hold.idle_since
        hold.idle_since = None
        hold.idle += idle
        hold.longest_idle = max(hold.longest_idle, idle)
        hold.statement = statement
        statement += hold.comment
    try:
        if (holder := loan.holder) is not None:
            holder.check_statement()
            if loan.savepoints is not None or facts.savepoints:
                _note_in_savepoints(loan, holder, facts, statement, context)
        is_alone = loan.statements_in_flight == 1
        if loan.state is not _OPEN or not is_alone or not loan.in_transaction():
            _check(loan)
        if hold is not None and (limit := hold.idle_limit) is not None:
            _check_idle_time(loan, hold, limit, statement)
        if holder is not None and (facts.may_leave_traces or facts.may_replace):
            _prepare(loan, facts, statement, parameters, context)
        has_directives = loan.statement_prefix or loan.client_side_read_only
        if loan.undecided is None and not (loan.begun_with_id or has_directives):
            execute(cursor, statement, parameters, context)
        else:
            args = cursor, statement, parameters, context
            if (sent := _execute_otherwise(execute, loan, *args)) is None:
                return
            statement = sent
    finally:
        loan.statements_in_flight -= 1
        loan.messages = loan.counter.queries_count
        if facts.has_several_statements:
            loan.bypassed_by += 2
        if hold is not None:
            hold.idle_since = monotonic()
            if hold.report is not None:
                hold.report.executed(hold.idle_since - now, context, statement)
    note_effects(loan, statement, context, facts)


def _prepare(
    loan: Loan, facts: StatementFacts, statement: str, parameters: Any, context: Any
) -> None:
    """Prepare for a statement that may do more to the connection than others."""
    if facts.may_leave_traces:
        note_traces(context, statement, parameters)
    if facts.may_replace:
        _check_guard(context, loan)
        set_guard(context.root_connection, loan)


def _check_guard(context: Any, loan: Loan) -> None:
    """Raise if the transaction is known to be another one by now."""
    if is_replaced(context.dialect, context.root_connection.connection, loan):
        loan.move(TransactionState.REPLACED)
        raise ended_elsewhere()


def _note_in_savepoints(
    loan: Loan,
    holder: LoanHolder[Loan],
    facts: StatementFacts,
    statement: str,
    context: Any,
) -> None:
    savepoints = loan.savepoints or holder.open_savepoints()
    savepoints.note_statement(statement, context)
    if facts.savepoints:
        _check_guard(context, loan)  # it may end with another savepoint
    for command in facts.savepoints:
        if loan.driver_calls is not None:
            loan.driver_calls.expect(command)
        for each in savepoints.note_command(loan, command, context):
            holder.savepoint_undone(each)


def _execute_otherwise(
    execute: Execute,
    loan: Loan,
    cursor: Any,
    statement: str,
    parameters: Any,
    context: Any,
) -> str | None:
    """Execute it as the directives or the release mode of its transaction want it.

    Returns what was sent; `None` if that was not in a transaction.
    """
    if loan.undecided is not None:
        args = statement, parameters
        cursor = execute_first(execute, loan, cursor, args, context)
        if cursor is None:
            return None
    if loan.begun_with_id:
        prepare_first_statement(context.root_connection, loan, statement)
    statement = loan.statement_prefix + statement
    if loan.client_side_read_only:
        with only_reading(context, statement):
            execute(cursor, statement, parameters, context)
    else:
        execute(cursor, statement, parameters, context)
    return statement


def _check_idle_time(loan: Loan, hold: Hold, limit: float, statement: str) -> None:
    """Raise `UsageError` if it is over *limit*: the work is lost.

    Not for a *statement* that undoes something.
    """
    if hold.longest_idle <= limit or not loan.is_open:
        return
    if not statement.startswith(("ROLLBACK", "RELEASE")):
        loan.move(TransactionState.LOST)
        raise UsageError(_IDLE.format(hold.longest_idle, limit))


def _check(loan: Loan) -> None:
    """Raise unless a statement would be a part of the transaction of *loan*.

    Called unless that is open, and the driver reports that.
    """
    state = loan.state
    if state is TransactionState.ENDING:  # another task or thread waits for the answer
        raise IllegalStateChangeError(_BEING_ENDED)
    if state is TransactionState.LOST:  # or it would begin a transaction of its own
        raise unexpected_rollback(loan.failure) from loan.failure
    if loan.statements_in_flight > 1:
        return  # the answer of the driver would wait for the other statement
    if loan.holder is not None and loan.has_ended:
        raise ended_elsewhere() from loan.failure


def _execute_without_parameters(cursor: Any, statement: str, context: Any) -> bool:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        context.dialect.do_execute_no_params(cursor, statement, context)

    return _executing(execute)(cursor, statement, None, context)
