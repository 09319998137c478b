"""What of SQLAlchemy is private, and shows who works inside which savepoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

__all__ = ["has_joined", "watch_changes"]


class _WatchedStates(set[Any]):
    """The changed objects of a session; *note* is called as one is added."""

    __slots__ = ("note",)
    note: Callable[[], None]

    def add(self, state: Any) -> None:
        self.note()
        super().add(state)


def watch_changes(session: Session, note: Callable[[], None]) -> None:
    """Call *note* whenever an attribute is set on an unchanged object of *session*."""
    objects: Any = session.identity_map
    if not isinstance(objects._modified, _WatchedStates):
        objects._modified = _WatchedStates(objects._modified)
    objects._modified.note = note


def has_joined(savepoint: Any, connection: Connection) -> bool:
    """Whether *savepoint*, of a session, has been begun on *connection*."""
    return connection in savepoint._connections
