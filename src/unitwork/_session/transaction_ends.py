"""How the transactions of one session have ended, as far as SQLAlchemy reports it."""

from __future__ import annotations

import time

from sqlalchemy import Connection
from sqlalchemy.engine import RootTransaction
from sqlalchemy.orm import SessionTransaction

from .._transaction.savepoints import OpenSavepoints

__all__ = ["TransactionEnds"]


class TransactionEnds:
    """Recorded by the listeners of the fence; reset with each transaction.

    A transaction or savepoint is committed only if SQLAlchemy has reported the answer
    to its COMMIT or RELEASE. However else it ends, its work is undone.
    """

    __slots__ = (
        "_begun_at",
        "_seconds",
        "cancellation",
        "commit_undone",
        "committed",
        "has_read",
        "left_by_error",
        "rolled_back",
        "roots",
        "savepoints",
    )

    def __init__(self) -> None:
        self.roots: tuple[tuple[Connection, RootTransaction | None], ...] = ()
        """Each connection, and its transaction as it was begun."""
        self._begun_at: float | None = None
        """By `time.monotonic()`, if slow units are to be logged."""
        self._seconds = 0.0
        """How long the transactions that have ended took together."""
        self.committed: SessionTransaction | None = None
        """The one whose COMMIT or RELEASE was answered, until it has ended."""
        self.rolled_back: SessionTransaction | None = None
        """The one that was rolled back, until it has ended."""
        self.savepoints: OpenSavepoints | None = None
        """Those of the transaction, once there was one."""
        self.cancellation: BaseException | None = None
        """What arrived while COMMIT was under way, to be raised after that."""
        self.commit_undone = False
        """Whether the unit's COMMIT has ended in a rollback that raised nothing."""
        self.has_read = False
        """Whether nothing was done but to read, without a transaction, since one."""
        self.left_by_error = False
        """Whether an exception is leaving a `with` block of the session itself."""

    def reset(self) -> None:
        self.roots = ()
        if self.savepoints is not None:
            self.savepoints.transaction_ended()
            self.savepoints = None
        if self._begun_at is not None:
            self._stop_timing()
        self.commit_undone = False

    def start_timing(self) -> None:
        """Take the time from here to the end of the transaction."""
        if self._begun_at is None:
            self._begun_at = time.monotonic()

    def _stop_timing(self) -> None:
        if self._begun_at is not None:
            self._seconds += time.monotonic() - self._begun_at
            self._begun_at = None

    def take_seconds(self) -> float:
        """Return how long all transactions took; count from 0 again."""
        self._stop_timing()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    @property
    def by_connection(self) -> bool:
        """Whether a transaction was ended through its connection, not its session."""
        for connection, root in self.roots:
            if connection.get_transaction() is not root:
                return True
        return False

    def raise_cancellation(self) -> None:
        """Raise the one that arrived while COMMIT was under way, if there was one."""
        cancellation, self.cancellation = self.cancellation, None
        if cancellation is not None:
            raise cancellation

    def released(self, transaction: SessionTransaction) -> None:
        """Record that it is to be ended without loss: it has only read."""
        self.committed = transaction

    def ended(self, transaction: SessionTransaction) -> tuple[bool, bool]:
        """Return whether it has been committed, and whether it was rolled back."""
        found = self.committed is transaction, self.rolled_back is transaction
        if self._begun_at is not None and not transaction.nested:
            self._stop_timing()
        # A transaction refers to its session, and so leads back to here.
        self.committed = self.rolled_back = None
        return found
