"""The interface of a loan to the session of the unit that it serves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from .._driver.postgresql_end import CommittedAt
from .savepoints import OpenSavepoints

__all__ = ["LoanHolder"]

LoanT = TypeVar("LoanT", contravariant=True)
"""The loan, which imports this module and not the other way round."""


class LoanHolder(Protocol[LoanT]):
    """The session of a unit, which the loan of a connection serves."""

    def check_statement(self) -> None:
        """Raise unless the session may execute a statement now."""

    def open_savepoints(self) -> OpenSavepoints:
        """The record of the session's savepoints, made on first use."""
        ...

    def savepoint_undone(self, savepoint: object) -> None:
        """Called when *savepoint*, not begun by the session, is rolled back."""

    def describe(self) -> str:
        """What its unit is for, in messages."""
        ...

    def send_commit(self, loan: LoanT, send: Callable[[], None]) -> None:
        """Commit the transaction of *loan* by *send*; raise unless it is committed."""

    def is_committed_by_unit(self) -> bool:
        """Whether its unit commits it, with no other connection, and on no replica.

        Raises if a rollback was requested since.
        """
        ...

    def committed_by_statement(self) -> None:
        """Called when a statement has committed all that came before it."""

    def committed_at(self, position: CommittedAt | None) -> None:
        """Called after COMMIT, if positions are wanted; `None`: it has only read."""
