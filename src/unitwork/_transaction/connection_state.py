"""The state of a pooled connection, and of one loan of it, that no driver keeps."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from .._driver.driver_calls import watch_calls
from .._driver.driver_connection import abort, message_counter, transaction_probe
from .._driver.driver_watch import watch
from .._driver.mysql_status import commits_each
from .driver_calls import DriverCalls
from .loan import Loan
from .write_evidence import changes_of

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "INFO_KEY",
    "ConnectionState",
    "known_state",
    "loan_of",
    "state_of",
]

INFO_KEY = "unitwork"


class ConnectionState:
    """One connection, from the time it is opened until it is closed."""

    __slots__ = (
        "__weakref__",
        "_counter",
        "_watches_calls",
        "aborted_by_client",
        "commits_each",
        "counts_changes",
        "driver_connection",
        "has_ids",
        "in_transaction",
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
        """Whether it was neither in the pool nor in the transaction of a unit yet."""
        self.has_ids = True
        """Whether the query of a transaction id has not failed on it."""
        self.installation: Any = None
        """What identifies its server, once that has been queried."""
        self.pragmas: dict[str, Any] = {}
        """SQLite's pragmas that the transaction has changed: their values before."""
        self.commits_each = commits_each(driver_connection)
        """Whether the autocommit mode of MySQL was on when it was opened."""
        # The type's: that of a closed connection can't be read.
        self.counts_changes = hasattr(type(driver_connection), "total_changes")
        self.watch_again()
        self.lend()

    def watch_again(self) -> None:
        """Watch the driver's connection, which others have watched meanwhile."""
        watch(
            self.driver_connection,
            WeakMethod(self.transaction_ended),
            WeakMethod(self.result_failed),
            WeakMethod(self.end_timeout),
        )
        self._watches_calls: bool | None = None  # else: whether of SQLAlchemy as well
        self._counter = message_counter(self.driver_connection)
        self.in_transaction = transaction_probe(self.driver_connection)

    def requested(self, connection: Connection) -> None:
        """Watch what is sent through the driver's connection from now on."""
        if self._watches_calls is None:
            self._watches_calls = watch_calls(
                self.driver_connection, WeakMethod(self.driver_called)
            )
        if self.loan.driver_calls is None:
            self.loan.driver_calls = DriverCalls(
                connection, with_sqlalchemy=self._watches_calls
            )

    def driver_called(self, statement: str) -> None:
        """Called before the driver sends *statement*."""
        loan = self.loan
        if loan.driver_calls is not None and loan.holder is not None:
            loan.driver_calls.note(statement, loan, loan.holder)

    def abort(self) -> None:
        """Abort it, and a statement under way on it: that fails. No I/O."""
        self.aborted_by_client = True
        loan = self.loan
        abort(self.driver_connection, lambda: not loan.statements_in_flight)

    def end_timeout(self) -> float:
        """The seconds that a cancelled statement may take to end."""
        return self.loan.end_timeout

    def discarded(self) -> None:
        """Record that it is about to be closed: that rolls back what is open."""
        if self.loan.hold is not None:
            self.loan.hold.returned()
        if not self.loan.has_ended:
            self.loan.is_over()

    def transaction_ended(self) -> None:
        """Called when the driver has noticed that, whatever has ended it."""
        self.loan.ended_by_driver()

    def result_failed(self, error: Exception) -> None:
        """Called when a statement has failed whose first result was none."""
        self.loan.failed_late(error)

    def lend(self) -> Loan:
        """Start a new loan: what is known of the one before does not apply any more."""
        driver = self.driver_connection
        changes = changes_of(driver) if self.counts_changes else 0
        self.loan = loan = Loan(driver, self._counter, changes, self.in_transaction)
        return loan

    def adopt(self, loan: Loan) -> None:
        """Let *loan*, of a connection that was lost, go on with this one."""
        loan.go_on_with(self.loan)
        self.loan = loan


def state_of(connection: Connection) -> ConnectionState | None:
    """The state of an open *connection*; `None` once it is closed or invalidated."""
    if connection.closed or connection.invalidated:
        return None
    try:
        state: ConnectionState | None = connection.info.get(INFO_KEY)
    except NotImplementedError:  # SQLAlchemy's first connection, in initialize()
        return None
    return state


def known_state(connection: Connection) -> ConnectionState:
    """The state of an open *connection*; made now, if it was opened unnoticed."""
    info = connection.connection.info
    state: ConnectionState | None = info.get(INFO_KEY)
    if state is None:
        loop = asyncio.get_running_loop() if connection.dialect.is_async else None
        driver_connection = connection.connection.driver_connection
        state = ConnectionState(loop, driver_connection)
        info[INFO_KEY] = state
    return state


def loan_of(connection: Connection) -> Loan | None:
    """The present loan of an open *connection*."""
    state = state_of(connection)
    return None if state is None else state.loan
