"""`scope["state"]`, and the states of a response."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["NEXT_STATES", "NO_STATE", "ResponseState", "State"]

_TAKEN_FOR_A_SESSION = {"async_session", "database", "db", "db_session", "session"}


class State(dict[str, Any]):
    """`scope["state"]`, in which a session appears when its name is looked up."""

    __slots__ = ("provider",)

    provider: Connection | None

    def __missing__(self, key: str) -> Any:
        connection = self.provider
        while connection is not None:
            if (database := connection.databases.get(key)) is not None:
                return connection.open_unit().session_of(database).session
            connection = connection.outer  # of a middleware further out
        raise KeyError(self._remedy_for(key) if key in _TAKEN_FOR_A_SESSION else key)

    def _remedy_for(self, key: str) -> str:
        """What to write in place of *key*; the caller may show it as the context."""
        names: list[str] = []
        connection = self.provider
        while connection is not None:
            names += connection.databases
            connection = connection.outer
        found = " or ".join(f"request.state.{name}" for name in dict.fromkeys(names))
        return f"{key}: the session of the request is {found}" if found else key


NO_STATE = State()
NO_STATE.provider = None
"""In place of the scope, and its state, of a request that is over."""


class ResponseState(IntEnum):
    """The state of a response. From REPLACED on the application is unwound.

    Integers, as they are compared and looked up with each message.
    """

    WAITING = 0
    STARTED = 1
    COMPLETE = 2
    """Its last chunk is sent, or the application has returned without one."""
    REPLACED = 3
    """The client gets an error in its place, or nothing if it has left."""
    RETRY = 4
    """The request is run again."""
    CUT_SHORT = 5
    """An error came after its start, or the client has left: it is not finished."""

    @property
    def has_started(self) -> bool:
        return self in _HAVE_STARTED


_HAVE_STARTED = {
    ResponseState.STARTED,
    ResponseState.COMPLETE,
    ResponseState.CUT_SHORT,
}
NEXT_STATES = (
    1 << ResponseState.STARTED
    | 1 << ResponseState.COMPLETE
    | 1 << ResponseState.REPLACED
    | 1 << ResponseState.RETRY,
    1 << ResponseState.COMPLETE | 1 << ResponseState.CUT_SHORT,
    0,
    0,
    1 << ResponseState.REPLACED,
    0,
)
"""For each state, in their order, those that may follow it: a bit for each."""
