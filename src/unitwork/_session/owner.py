"""The interface of a session to the unit of work that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import SessionTransaction

from .._driver.gtids import LogPosition
from .._engine.begin import TransactionCharacteristics
from .._observing.unit_report import UnitReport
from .._replicas.position import Position
from .._transaction.savepoints import SavepointOwner
from ..errors import CommitUnknownError, PartialCommitError

__all__ = ["SessionOwner"]

SessionT = TypeVar("SessionT", contravariant=True)
"""The session of a unit, which imports this module and not the other way round."""


class _Described(Protocol):
    @property
    def description(self) -> str: ...


class ConnectionObserver(Protocol[SessionT]):
    """Watches which connections the sessions of a unit use."""

    def check(self, session: SessionT, bind: Engine | Connection) -> None:
        """Raise `UsageError` if the session must not connect to *bind*."""

    def begin(self, session: SessionT, connection: Connection) -> None:
        """Called when a transaction has begun, before its first statement. May do I/O.

        Raises `UsageError` if the connection can't take part.
        """


class SessionOwner(SavepointOwner, Protocol[SessionT]):
    """Gives a session's transactions their characteristics; is notified of their end.

    The methods are called wherever the session is used: in a greenlet of SQLAlchemy's
    or in a worker thread. None of them does I/O.
    """

    @property
    def owner(self) -> _Described:
        """What has opened it."""
        ...

    @property
    def report(self) -> UnitReport | None:
        """What reports its events, if one of its databases is observed."""
        ...

    @property
    def two_phase(self) -> ConnectionObserver[SessionT] | None:
        """What its connections are reported to, if it is committed in two phases."""
        ...

    def outwards(self) -> Iterator[object]:
        """Yield it and those that enclose it."""
        ...

    def characteristics(self, session: SessionT) -> TransactionCharacteristics | None:
        """Those of the next transaction; `None`: the engine's defaults."""

    def identifies_transactions(self, session: SessionT) -> bool:
        """Whether BEGIN is to return what identifies the transaction: it may write."""
        ...

    def needed_position(self, session: SessionT) -> Position | None:
        """Up to where the session has to see what was written; `None`: no matter."""

    def write_committed(self, session: SessionT, at: LogPosition | None) -> None:
        """Called when *session* may have stored what replicas have to replay.

        *at* is its position; `None`: it is not known.
        """

    @property
    def is_inside_a_retry(self) -> bool:
        """Whether an enclosing unit may be retried: then it counts what is stored."""
        ...

    def begin_commit(self) -> bool:
        """Return whether COMMIT may be sent; from then on nothing interrupts it."""
        ...

    @property
    def withdraws_commit(self) -> bool:
        """Whether a rollback was requested since, and no session has committed."""
        ...

    def check_commit(self) -> None:
        """Raise if the unit is to be rolled back, before the application's COMMIT."""

    def user_committed(self, session: SessionT) -> None:
        """Called when the application's `session.commit()` has succeeded."""

    def user_commit_failed(self) -> None:
        """Called when the session is used after a `session.commit()` that failed."""

    def settle_commit(self, session: SessionT) -> bool | None:
        """Find out whether `session.commit()`, which has failed, has committed.

        Returns `None` if that can't be known.
        """

    def commit_unclear(self, error: CommitUnknownError | PartialCommitError) -> None:
        """Record that the application's commit has ended with *error*."""

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """Called when a transaction or savepoint has ended without being committed.

        Not if that is the end of the unit. It has been rolled back, or dropped.
        """

    def savepoint_undone(self, savepoint: object) -> None:
        """Called when a savepoint is rolled back that the session has not begun."""

    def read_on(self) -> None:
        """Called when a read is over that was in no transaction."""

    def lose(self, error: BaseException) -> None:
        """Record that *error*, which is not raised any further, lost the work."""

    def describe_end(self) -> str:
        """How the unit has ended and why, for the message of `SessionEndedError`."""
        ...
