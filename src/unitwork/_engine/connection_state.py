"""The state of a pooled connection, and of one loan of it, that no driver keeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol
from weakref import ReferenceType, WeakMethod, ref

from .driver_connection import (
    in_transaction,
    is_cursor_open,
    last_result,
    reports_idle,
)
from .postgresql import watch
from .write_detection import known_to_read, known_to_write
from .write_evidence import TELLING, changes_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "INFO_KEY",
    "ConnectionState",
    "Loan",
    "LoanHolder",
    "known_state",
    "loan_of",
    "state_of",
]

INFO_KEY = "unitwork"
_CHAINS = re.compile(
    r"\s*(commit|end|rollback|abort)\b[^;]*\band\s+chain\b", re.IGNORECASE
)
_MYSQL = {"mysql", "mariadb"}
_ROLLS_BACK = {"rollback", "rollback;", "abort", "abort;"}


class LoanHolder(Protocol):
    """The session of a unit, which the loan of a connection serves."""

    def check_statement(self) -> None:
        """Raise unless the session may execute a statement now."""

    def send_commit(self, loan: Loan, send: Callable[[], None]) -> None:
        """Commit the transaction of *loan* by *send*; raise unless it is committed."""

    def committed_by_statement(self) -> None:
        """Called when a statement has committed all that came before it."""


class ConnectionState:
    """One connection, from the time it is opened until it is closed."""

    __slots__ = (
        "__weakref__",
        "aborted_by_client",
        "driver_connection",
        "installation",
        "is_new",
        "loan",
        "loop",
        "pragmas",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None, driver_connection: Any
    ) -> None:
        self.loop = loop
        self.driver_connection = driver_connection
        self.aborted_by_client = False
        """Whether unitwork has aborted it: its user may not have noticed that."""
        self.is_new = True
        """Whether no transaction of a unit has begun on it yet."""
        self.installation: Any = None
        """What identifies its server, once that has been queried."""
        self.pragmas: dict[str, Any] = {}
        """SQLite's pragmas that the transaction has changed: their values before."""
        self.loan = Loan(driver_connection)
        watch(driver_connection, WeakMethod(self.another_begins))

    def discarded(self) -> None:
        """Record that it is about to be closed: that rolls back what is open."""
        if not self.loan.has_ended:
            self.loan.began = False

    def another_begins(self) -> None:
        if self.loan.began:
            self.loan.was_replaced = True

    def lend(self) -> Loan:
        """Start a new loan: what is known of the one before does not apply any more."""
        self.loan = Loan(self.driver_connection)
        return self.loan


class Loan:
    """One loan of a connection: from its checkout, or the BEGIN of a unit, to its end.

    Of a unit that has ended, it says nothing about the next user of the connection.
    """

    __slots__ = (
        "began",
        "begun_with_id",
        "changes_before",
        "client_side_read_only",
        "driver_connection",
        "failure",
        "holder",
        "in_two_phases",
        "is_being_ended",
        "is_committed",
        "last_result",
        "mark",
        "only_reads",
        "read_only",
        "rolled_back_by_server",
        "server_side_cursor",
        "statement_prefix",
        "statements_in_flight",
        "was_replaced",
        "wrote",
        "xid",
    )

    def __init__(self, driver_connection: Any) -> None:
        self.driver_connection = driver_connection
        self.holder: LoanHolder | None = None
        """The session of a unit; `None` if something else uses the connection."""
        self.began = False
        """Whether the driver has reported a transaction, which has yet to end."""
        self.was_replaced = False
        """Whether the driver has begun another transaction since."""
        self.begun_with_id = False
        """Whether BEGIN has had a query behind it, and no statement followed yet."""
        self.in_two_phases = False
        """Whether it ends by PREPARE TRANSACTION or XA PREPARE."""
        self.is_committed = False
        self.is_being_ended = False
        """Whether COMMIT or ROLLBACK is under way."""
        self.mark: Any = None
        """What identifies the transaction, if BEGIN has returned it."""
        self.wrote = False
        """Whether a statement of the transaction is known to have written."""
        self.only_reads = True
        """Whether all statements are known to read, if the database can't show that."""
        self.last_result = last_result(self.driver_connection)
        self.changes_before = changes_of(self.driver_connection)
        self.statement_prefix = ""
        """What each statement of the transaction begins with."""
        self.xid = ""
        """The name of the XA transaction that is open, and not prepared yet."""
        self.read_only = False
        self.client_side_read_only = False
        """Whether writes are rejected client-side: AUTOCOMMIT has no transaction."""
        self.failure: BaseException | None = None
        """The last statement error that no savepoint has undone."""
        self.rolled_back_by_server = False
        """Whether the whole transaction is rolled back, and not by SQLAlchemy."""
        self.statements_in_flight = 0
        self.server_side_cursor: ReferenceType[Any] | None = None
        """The execution context of the last statement with one."""

    def statement_executed(self, statement: str, context: Any) -> None:
        """Record whether *statement* has written, or opened a server-side cursor."""
        if not self.began:
            self.began = in_transaction(self.driver_connection)
        elif context.compiled is None or context.is_text or context.isddl:
            self._text_executed(statement, context.dialect.name)
        if not self.wrote:
            self.wrote = known_to_write(context, statement)
            if self.only_reads and context.dialect.name not in TELLING:
                self.only_reads = known_to_read(context, statement)
                self.last_result = last_result(self.driver_connection)
        options = context.execution_options
        if options and (options.get("stream_results") or options.get("yield_per")):
            self.server_side_cursor = ref(context)

    def _text_executed(self, statement: str, dialect: str) -> None:
        if _CHAINS.match(statement):
            self.was_replaced = True
        if not self.has_ended:
            return
        if statement.split(None, 1)[0].lower() in _ROLLS_BACK:
            self.rolled_back_by_server = True
        elif dialect in _MYSQL and self.holder is not None:  # as DDL does it
            self.began = False
            self.holder.committed_by_statement()

    @property
    def has_ended(self) -> bool:
        """Whether the driver reports that the transaction is over, which had
        begun, while the connection is open.
        """
        if not self.began or self.in_two_phases:
            return False
        return self.was_replaced or reports_idle(self.driver_connection)

    @property
    def has_ended_elsewhere(self) -> bool:
        """Whether SQL or the driver has ended it, so that it may be committed."""
        if self.rolled_back_by_server or self.is_committed:
            return False
        return self.has_ended

    @property
    def was_bypassed(self) -> bool:
        """Whether a driver of MySQL has had a query that did not pass SQLAlchemy."""
        result = last_result(self.driver_connection)
        return result is not None and result is not self.last_result

    @property
    def may_have_written(self) -> bool:
        """Whether it has written, as far as is known without I/O: see `has_written`."""
        return self.wrote or changes_of(self.driver_connection) != self.changes_before

    @property
    def is_streaming(self) -> bool:
        """Whether a server-side cursor is open, as far as that is known."""
        cursor = self.server_side_cursor
        context = cursor() if cursor is not None else None
        return context is not None and is_cursor_open(context.cursor)


def state_of(connection: Connection) -> ConnectionState | None:
    """The state of an open *connection*; `None` once it is closed or invalidated."""
    if connection.closed or connection.invalidated:
        return None
    state: ConnectionState | None = connection.info.get(INFO_KEY)
    return state


def known_state(connection: Connection) -> ConnectionState:
    """The state of an open *connection*; made now, if it was opened unnoticed."""
    state: ConnectionState | None = connection.info.get(INFO_KEY)
    if state is None:
        loop = asyncio.get_running_loop() if connection.dialect.is_async else None
        driver_connection = connection.connection.driver_connection
        state = ConnectionState(loop, driver_connection)
        connection.info[INFO_KEY] = state
    return state


def loan_of(connection: Connection) -> Loan | None:
    """The present loan of an open *connection*."""
    state = state_of(connection)
    return None if state is None else state.loan
