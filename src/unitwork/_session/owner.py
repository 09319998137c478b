"""What a session needs of the unit of work that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import SessionTransaction

from .._engine.begin import TransactionCharacteristics

if TYPE_CHECKING:
    from .unit_session import UnitSession

__all__ = ["SessionOwner"]


class SessionOwner(Protocol):
    """Decides what a session's transactions begin with, and learns how they end.

    The methods are called wherever the session is used: in a greenlet of SQLAlchemy's
    or in a worker thread. None of them does I/O, but for `connection_begun()`.
    """

    def characteristics(
        self, session: UnitSession
    ) -> TransactionCharacteristics | None:
        """What the next transaction begins with; `None`: the engine's defaults."""

    def check_bind(self, session: UnitSession, bind: Engine | Connection) -> None:
        """Raise `UsageError` if the session must not connect to *bind*."""

    def connection_begun(self, session: UnitSession, connection: Connection) -> None:
        """A transaction has begun on *connection*: the first statement is to come."""

    def begin_commit(self) -> bool:
        """Say whether COMMIT may be sent; from then on it can't be interrupted."""
        ...

    def user_committed(self) -> None:
        """The application has called `session.commit()`, and it has succeeded."""

    def user_commit_failed(self) -> None:
        """The application goes on after a `session.commit()` that has failed."""

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """A transaction or savepoint was rolled back, other than by the unit's end."""

    def describe_end(self) -> str:
        """How the unit has ended and why, for the message of `SessionEndedError`."""
        ...
