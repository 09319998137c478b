"""What of SQLAlchemy is private, and shows who works inside which savepoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.orm import Session

__all__ = ["NotesDeletions", "is_in_block", "name_on", "watch_changes"]


class _WatchedChanges(dict[str, Any]):
    """What the attributes of an object were; *note* is called for each change."""

    __slots__ = ("note",)
    note: Callable[[], None]

    def __contains__(self, key: object) -> bool:
        self.note()  # SQLAlchemy looks before each change
        return super().__contains__(key)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class _WatchedStates(set[Any]):
    """The changed objects of a session; *note* is called as one is added."""

    __slots__ = ("note",)
    note: Callable[[], None]

    def add(self, state: Any) -> None:
        self.note()
        super().add(state)
        changes = _WatchedChanges(state.committed_state)
        changes.note = self.note
        state.committed_state = changes


class NotesDeletions(Session):
    """A session that records who deletes its objects: there is no event for that."""

    unitwork_session: Any = None

    def _delete_impl(self, *args: Any, **options: Any) -> None:
        # Of `delete()`, its cascades, and `delete_all()`.
        if self.unitwork_session is not None:
            self.unitwork_session.note_work()
        super()._delete_impl(*args, **options)


def watch_changes(session: Session, note: Callable[[], None]) -> None:
    """Call *note* whenever an attribute is set on an unchanged object of *session*."""
    objects: Any = session.identity_map
    if not isinstance(objects._modified, _WatchedStates):
        objects._modified = _WatchedStates(objects._modified)
    objects._modified.note = note


def name_on(savepoint: Any, connection: Connection) -> str | None:
    """The name of a session's *savepoint*; `None` if *connection* has not begun it."""
    joined = savepoint._connections.get(connection)
    return None if joined is None else joined[1]._savepoint  # its `NestedTransaction`


def is_in_block(savepoint: Any) -> bool:
    """Whether a `with` block of a session's *savepoint* is open."""
    return getattr(savepoint, "_trans_subject", None) is not None
