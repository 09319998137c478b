"""One loan of a pooled connection, and the state of the transaction on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import ReferenceType

from .._driver.driver_connection import (
    MessageCounter,
    in_transaction,
    is_cursor_open,
    message_counter,
    reports_idle,
    transaction_probe,
)
from .._sql.transaction_control import commits
from .driver_calls import DriverCalls
from .hold import Hold
from .loan_holder import LoanHolder
from .savepoints import OpenSavepoints
from .transaction_state import MOVES, TransactionState, Undecided
from .write_evidence import changes_of

__all__ = ["Loan", "TransactionState"]

T = TypeVar("T")

_END_TIMEOUT = 5.0  # for others than units
_S = TransactionState
# Constants of the module: to look a member of an enum up takes ten times as long.
_NONE, _OPEN, _ENDING, _COMMITTED = _S.NONE, _S.OPEN, _S.ENDING, _S.COMMITTED
_ARE_OPEN = (_OPEN, _S.CONTINUED)
_ARE_COMMITTED = (_COMMITTED, _S.CONTINUED)


class Loan:
    """One loan of a connection: from its checkout, or BEGIN of a unit, to its end."""

    __slots__ = (
        "begun_with_id",
        "bypassed_by",
        "changes_before",
        "client_side_read_only",
        "counter",
        "driver_calls",
        "driver_connection",
        "end_timeout",
        "failure",
        "first_setting",
        "guard_is_older",
        "has_failed_late",
        "has_guard",
        "has_stored",
        "hold",
        "holder",
        "in_transaction",
        "mark",
        "may_be_another",
        "messages",
        "only_reads",
        "proxy",
        "read_only",
        "savepoints",
        "server_side_cursor",
        "state",
        "statement_prefix",
        "statements_in_flight",
        "texts",
        "undecided",
        "wants_position",
        "wrote",
        "xid",
    )

    def __init__(
        self,
        driver_connection: Any,
        counter: MessageCounter | None = None,
        changes_before: int = 0,
        probe: Callable[[], object] | None = None,
    ) -> None:
        self.driver_connection = driver_connection
        self.in_transaction = probe or transaction_probe(driver_connection)
        self.undecided: Undecided | None = None
        self.end_timeout = _END_TIMEOUT  # seconds, of a cancelled statement
        self.hold: Hold | None = None
        self.holder: LoanHolder[Loan] | None = None
        """The session of a unit; `None` if something else uses the connection."""
        self.proxy: ReferenceType[Any] | None = None
        """The unit's proxy, of the several that a `StaticPool` gives out."""
        self.state = _NONE
        self.begun_with_id = False
        """Whether BEGIN has had a query behind it, and no statement followed yet."""
        self.mark: Any = None  # identifies the transaction, if BEGIN has returned it
        self.wrote = False  # as far as is known without I/O
        self.texts: dict[str, None] = {}
        """Its statements until one is known to write; not more than `MOST_TEXTS`."""
        self.only_reads = True
        """Whether all statements are known to read, if the database can't show that."""
        self.counter = counter or message_counter(driver_connection)
        self.messages = self.counter.queries_count
        """How many the driver had sent after the last statement of SQLAlchemy's."""
        self.bypassed_by = 0
        """How many messages have passed SQLAlchemy, up to the last statement."""
        self.may_be_another = False  # unidentified when it was to be committed
        self.changes_before = changes_before
        self.first_setting = self.statement_prefix = ""
        """What is sent in the message of BEGIN; what each statement begins with."""
        self.xid = ""  # of the XA transaction that is open, and not prepared yet
        self.has_guard = self.guard_is_older = False  # see `transaction_guard`
        self.has_stored = False  # or perhaps what ROLLBACK does not undo
        self.has_failed_late = False  # unless a savepoint has undone the `failure`
        self.read_only = self.wants_position = False  # the position of its COMMIT
        self.client_side_read_only = False
        """Whether writes are rejected client-side: AUTOCOMMIT has no transaction."""
        self.savepoints: OpenSavepoints | None = None  # of the session, if it has any
        self.driver_calls: DriverCalls | None = None  # if it was requested
        self.failure: BaseException | None = None  # that no savepoint has undone
        self.statements_in_flight = 0
        self.server_side_cursor: ReferenceType[Any] | None = None
        """The execution context of the last statement with one."""

    def go_on_with(self, new: Loan) -> None:
        """Go on with the connection of the *new* loan; nothing had begun."""
        self.driver_connection, self.counter = new.driver_connection, new.counter
        self.in_transaction = new.in_transaction
        self.messages, self.changes_before = new.messages, new.changes_before
        self.driver_calls = None

    @property
    def is_unused(self) -> bool:
        """Whether it is as a new one would be."""
        return (
            self.state is _NONE
            and not (self.holder or self.hold or self.proxy or self.undecided)
            and not (self.failure or self.mark or self.server_side_cursor)
            and not (self.has_guard or self.guard_is_older)
            and not (self.has_failed_late or self.has_stored)
            and self.messages == self.counter.queries_count
            and not (self.texts or self.wrote or self.statements_in_flight or self.xid)
            and not (self.bypassed_by or self.first_setting or self.statement_prefix)
            and not (self.read_only or self.client_side_read_only or self.begun_with_id)
            and not (self.may_be_another or self.wants_position or not self.only_reads)
            and self.end_timeout == _END_TIMEOUT
            and not (self.savepoints or self.driver_calls)
        )

    # The state of its transaction

    def move(self, state: TransactionState) -> None:
        """Move to *state*, if the state before allows that."""
        if state in MOVES[self.state]:
            self.state = state

    def has_begun(self, mark: Any = None) -> None:
        """Record that the driver has reported a transaction, identified by *mark*."""
        if self.has_guard:
            self.has_guard = self.guard_is_older
        if self.state is _NONE:
            self.state = _OPEN  # as `move()` does
        else:
            self.move(_S.CONTINUED if self.state is _S.COMMITTED else _OPEN)
        self.messages = self.counter.queries_count
        self.mark = mark
        self.bypassed_by, self.may_be_another = 0, False

    def is_over(self) -> None:
        """Record that nothing is open any more: it was not committed."""
        self.move(_S.COMMITTED if self.state is _S.CONTINUED else _NONE)

    def ended_by(self, send: Callable[[], T]) -> T:
        """Call *send*, which sends SQLAlchemy's COMMIT or ROLLBACK.

        It is not committed then, unless the answer says so.
        """
        before = self.state
        was_committed = before in _ARE_COMMITTED
        if before is _OPEN:
            self.state = _ENDING
        else:
            self.move(_ENDING)
        self.bypassed_by += self.counter.queries_count - self.messages
        try:
            return send()
        finally:
            self.messages = self.counter.queries_count
            self.has_guard = False
            after = _COMMITTED if was_committed else _NONE
            if self.state is _ENDING:
                self.state = after
            else:
                self.move(after)

    def ended_by_driver(self) -> None:
        """Record that the driver has reported an end that SQLAlchemy did not send."""
        if self.is_open and not self.statements_in_flight:
            self.move(_S.REPLACED)

    def failed_late(self, error: Exception) -> None:
        """Record an error of a statement that was over: SQLAlchemy drops it."""
        if self.holder is not None and not self.statements_in_flight:
            self.failure, self.has_failed_late = error, True

    def ended_by_another(self, end: TransactionState) -> None:
        """Record that another user of the connection is about to end it."""
        if self.is_open and self.holder is not None:
            self.move(_S.REPLACED if self.has_ended else end)

    def abandon(self, statement: str) -> None:
        """Record that *statement* was cancelled while a thread may go on with it.

        Nothing is read from the driver then: that would wait for the thread. The
        connection is discarded.
        """
        self.move(_S.REPLACED if commits("sqlite", statement) else _S.ABANDONED)

    @property
    def is_open(self) -> bool:
        """Whether the driver has reported a transaction, which has yet to end."""
        return self.state in _ARE_OPEN

    @property
    def is_lost(self) -> bool:
        """Whether the whole transaction is rolled back, and not by SQLAlchemy."""
        return self.state is _S.LOST

    @property
    def is_committed(self) -> bool:
        return self.state in _ARE_COMMITTED

    @property
    def was_replaced(self) -> bool:
        """Whether it has ended past SQLAlchemy, and another one may be open."""
        return self.state is _S.REPLACED

    @property
    def has_ended(self) -> bool:
        """Whether the driver reports, on an open connection, that it has ended."""
        if self.state in _ARE_OPEN:
            driver = self.driver_connection
            return not in_transaction(driver) and reports_idle(driver)
        return self.state is _S.REPLACED

    @property
    def has_ended_elsewhere(self) -> bool:
        """Whether SQL or the driver has ended it, so that it may be committed."""
        return self.has_ended and not self.is_committed

    # Its statements

    @property
    def was_bypassed(self) -> bool:
        """Whether a message may have done more than SQLAlchemy knows.

        The driver has sent one that did not pass SQLAlchemy, or one with several
        statements, which may have ended the transaction and begun another one.
        """
        return self.bypassed_by + self.counter.queries_count > self.messages

    @property
    def is_unidentified(self) -> bool:
        """Whether what is to be committed may not be what has the id of BEGIN."""
        if self.mark is None or not self.was_bypassed:
            return False
        messages = self.bypassed_by + self.counter.queries_count - self.messages
        return messages > 1 or not self.has_ended  # one has ended it, and no other one

    def begin_statement(self) -> None:
        """Count one of unitwork's own: of others `statement_events` does the same."""
        self.bypassed_by += self.counter.queries_count - self.messages
        self.statements_in_flight += 1

    def end_statement(self) -> None:
        self.statements_in_flight -= 1
        self.messages = self.counter.queries_count

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
