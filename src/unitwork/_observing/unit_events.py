"""The events of a unit of work."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class UnitBegun(UnitEvent):
    """A unit was made: a session, a hook or a block was requested. No I/O yet."""


@dataclass(frozen=True, slots=True)
class ConnectionTaken(UnitEvent):
    """A unit has taken a connection, after it has *waited*; *call_site* needed it."""

    database: str
    waited: float
    call_site: CallSite | None


@dataclass(frozen=True, slots=True)
class TransactionBegun(UnitEvent):
    """A transaction has begun on the connection; BEGIN took *duration*."""

    database: str
    duration: float


@dataclass(frozen=True, slots=True)
class StatementExecuted(UnitEvent):
    """A statement of the application is over, whether it succeeded or failed.

    *statement* is its text, without parameters, for those observers who have requested
    that (`show_sql=True`); else it is empty.
    """

    database: str
    duration: float
    statement: str = ""


@dataclass(frozen=True, slots=True)
class CommitSent(UnitEvent):
    """COMMIT is about to be sent: that of the unit, or `session.commit()`."""

    database: str


@dataclass(frozen=True, slots=True)
class CommitAnswered(UnitEvent):
    """COMMIT has returned, or has raised *error*, after *duration*."""

    database: str
    duration: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class OutcomeVerified(UnitEvent):
    """A COMMIT in doubt was verified; *committed* is `None` if it is still unknown."""

    database: str
    duration: float
    committed: bool | None


@dataclass(frozen=True, slots=True)
class ConnectionReturned(UnitEvent):
    """A unit has returned its connection; it was *idle* for a part of its time."""

    database: str
    held: float
    idle: float


@dataclass(frozen=True, slots=True)
class HoldWarning(UnitEvent):
    """A unit holds a connection for longer than `DatabaseSettings.hold_warning`."""

    database: str
    held: float
    idle: float
    call_site: CallSite | None


@dataclass(frozen=True, slots=True)
class OutsideEntered(UnitEvent):
    """A block of `unit.outside(name)` was entered."""

    name: str


@dataclass(frozen=True, slots=True)
class OutsideLeft(UnitEvent):
    """A block of `unit.outside(name)` was left."""

    name: str


@dataclass(frozen=True, slots=True)
class HookFailed(UnitEvent):
    """A hook has failed after the end; *error* is `None` if it was not called."""

    name: str
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class ResponseStarted(UnitEvent):
    """The start of the response leaves: all before it is committed, or undone."""

    status: int


@dataclass(frozen=True, slots=True)
class ResponseCompleted(UnitEvent):
    """The last part of the response leaves, or it was cut short."""

    complete: bool


@dataclass(frozen=True, slots=True)
class _Ending(UnitEvent):
    """An event with an *outcome*, its *reason*, and the *error*, if that is known."""

    outcome: Outcome
    reason: str
    error: BaseException | None

    @property
    def sqlstate(self) -> str | None:
        """The SQLSTATE, or the number, of the database's error."""
        code = None if self.error is None else classify(self.error).code
        return None if code is None else str(code)


@dataclass(frozen=True, slots=True)
class UnitSettled(_Ending):
    """An ending of the unit has its *outcome*, and *reason*.

    A request has one for its response, and another one if its body has used the
    database; a WebSocket has one for each message, a block just one.
    """


@dataclass(frozen=True, slots=True)
class UnitEnded(_Ending):
    """The unit is over for good: its sessions are closed. Its last event but a retry.

    *error* is what it ended with, if that is known. *use* is that of its connections.
    """

    duration: float
    use: ConnectionUse


@dataclass(frozen=True, slots=True)
class UnitRetried(UnitEvent):
    """The work of a unit, which has ended, is about to be done once more."""

    error: BaseException
