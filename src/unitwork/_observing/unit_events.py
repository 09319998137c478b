"""The events of a unit of work."""

from __future__ import annotations

from .._classify.classification import classify
from ..outcome import Outcome
from .event import UnitEvent
from .subjects import CallSite, ConnectionUse

__all__ = [
    "CommitAnswered",
    "CommitSent",
    "ConnectionReturned",
    "ConnectionTaken",
    "HoldWarning",
    "HookFailed",
    "OutcomeVerified",
    "OutsideEntered",
    "OutsideLeft",
    "ResponseCompleted",
    "ResponseStarted",
    "StatementExecuted",
    "TransactionBegun",
    "UnitBegun",
    "UnitEnded",
    "UnitRetried",
    "UnitSettled",
]


class UnitBegun(UnitEvent):
    """A unit was made: a session, a hook or a block was requested. No I/O yet."""

    __slots__ = ()


class ConnectionTaken(UnitEvent):
    """A unit has taken a connection of *pool*, after it has *waited* for that.

    *call_site* needed it. *pool* tells a replica, as in `PoolEvent`.
    """

    __slots__ = ()

    database: str
    pool: str
    waited: float
    call_site: CallSite | None


class TransactionBegun(UnitEvent):
    """A transaction has begun on the connection; BEGIN took *duration*."""

    __slots__ = ()

    database: str
    duration: float


class StatementExecuted(UnitEvent):
    """A statement of the application is over, whether it succeeded or failed.

    *statement* is its text, without parameters, for those observers who have requested
    that (`show_sql=True`); else it is empty.
    """

    __slots__ = ()

    database: str
    duration: float
    statement: str = ""

    def without_text(self) -> StatementExecuted:
        return StatementExecuted(self.at, self.unit, self.database, self.duration)


class CommitSent(UnitEvent):
    """COMMIT is about to be sent: that of the unit, or `session.commit()`."""

    __slots__ = ()

    database: str


class CommitAnswered(UnitEvent):
    """COMMIT has returned, or has raised *error*, after *duration*.

    In a two-phase commit this is the time of both phases of this database; *error* is
    why a database that was prepared is not committed.
    """

    __slots__ = ()

    database: str
    duration: float
    error: BaseException | None


class OutcomeVerified(UnitEvent):
    """A COMMIT in doubt was verified; *committed* is `None` if it is still unknown."""

    __slots__ = ()

    database: str
    duration: float
    committed: bool | None


class ConnectionReturned(UnitEvent):
    """A unit has returned its connection; it was *idle* for a part of its time."""

    __slots__ = ()

    database: str
    held: float
    idle: float


class HoldWarning(UnitEvent):
    """A unit holds a connection for longer than `DatabaseSettings.hold_warning`."""

    __slots__ = ()

    database: str
    held: float
    idle: float
    call_site: CallSite | None


class OutsideEntered(UnitEvent):
    """A block of `unit.outside(name)` was entered."""

    __slots__ = ()

    name: str


class OutsideLeft(UnitEvent):
    """A block of `unit.outside(name)` was left."""

    __slots__ = ()

    name: str


class HookFailed(UnitEvent):
    """A hook has failed after the end; *error* is `None` if it was not called."""

    __slots__ = ()

    name: str
    error: BaseException | None


class ResponseStarted(UnitEvent):
    """The start of the response leaves: all before it is committed, or undone."""

    __slots__ = ()

    status: int


class ResponseCompleted(UnitEvent):
    """The last part of the response leaves, or it was cut short."""

    __slots__ = ()

    complete: bool


class _EventOfOutcome(UnitEvent):
    """An event with an *outcome*, its *reason*, and the *error*, if that is known."""

    __slots__ = ()

    outcome: Outcome
    reason: str
    error: BaseException | None

    @property
    def sqlstate(self) -> str | None:
        """The SQLSTATE, or the number, of the database's error."""
        code = None if self.error is None else classify(self.error).code
        return None if code is None else str(code)


class UnitSettled(_EventOfOutcome):
    """An ending of the unit has its *outcome*, and *reason*.

    A request has one for its response, and another one if its body has used the
    database; a WebSocket has one for each message, a block just one.
    """

    __slots__ = ()


class UnitEnded(_EventOfOutcome):
    """The unit is over for good: its sessions are closed. Its last event but a retry.

    *error* is what it ended with, if that is known. *use* is that of its connections.
    """

    __slots__ = ()

    duration: float
    use: ConnectionUse


class UnitRetried(UnitEvent):
    """The work of a unit, which has ended, is about to be done once more."""

    __slots__ = ()

    error: BaseException
