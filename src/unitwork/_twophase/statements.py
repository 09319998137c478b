"""The two-phase statements that each database has in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from sqlalchemy import Connection

from .._classify.driver_errors import read
from .._engine.begin import OF_UNITWORK
from .._observing.commit_report import CommitReport
from .._transaction.connection_state import loan_of
from .._transaction.loan import TransactionState

__all__ = [
    "NoSuchPreparedTransaction",
    "TwoPhaseDialect",
    "code_of",
    "commit_report_of",
    "end_in_two_phases",
    "execute",
]


class NoSuchPreparedTransaction(Exception):
    """The server reports no prepared transaction of this name."""


class TwoPhaseDialect(Protocol):
    """The two-phase statements of one dialect; each method gets an open connection."""

    names_at_begin: bool
    """Whether the transaction must have its name before its first statement."""
    detached_after: float
    """Seconds after its connection has ended in which no other one may end it."""

    def open(self, connection: Connection) -> None:
        """Make a new connection ready to end what another one has prepared."""

    def begin(self, connection: Connection, name: str) -> None: ...

    def mark(self, connection: Connection) -> Any:
        """What identifies this transaction later; `None` if it has nothing to store."""

    def prepare(self, connection: Connection, name: str) -> None:
        """Raise `UsageError` if the server is not set up for that."""

    def is_detached(self, connection: Connection, mark: Any) -> bool:
        """Whether it belongs to no connection any more; *connection* is another one.

        Ends the connection that has prepared it, where it belongs to that.
        """
        ...

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        """End it, on the connection that has prepared it or on any other.

        Raises `NoSuchPreparedTransaction` if the server does not know it (any more).
        """

    def find_outcome(
        self, connection: Connection, name: str, mark: Any, *, requested: bool
    ) -> bool | None:
        """Whether one that the server does not know was committed; `None`: query again.

        Terminates a backend that may still prepare it. Where the server keeps no
        record, it is what was *requested*.
        """

    def statements_under_way(self, connection: Connection, name: str) -> Iterator[str]:
        """The statements that other connections execute, and that contain *name*."""
        ...

    def prepared(self, connection: Connection) -> Iterator[str]:
        """The names of all that are prepared in this database."""
        ...


def execute(connection: Connection, sql: str) -> None:
    """Execute *sql*, which is no statement of the application's."""
    connection.exec_driver_sql(sql, execution_options=OF_UNITWORK)


def commit_report_of(connection: Connection) -> CommitReport:
    """What reports the two-phase commit of *connection*, if a unit is observed."""
    loan = loan_of(connection)
    hold = None if loan is None else loan.hold
    if hold is None or hold.report is None:
        return CommitReport(None, "")
    return hold.report.commit_in_phases()


def end_in_two_phases(connection: Connection) -> None:
    """No COMMIT follows, and time limits (SET STATEMENT … FOR) are for statements."""
    if (loan := loan_of(connection)) is not None:
        loan.statement_prefix = ""
        loan.move(TransactionState.IN_TWO_PHASES)


def code_of(error: BaseException) -> str | int | None:
    found = read(getattr(error, "orig", None) or error)
    return found.code if found is not None else None
