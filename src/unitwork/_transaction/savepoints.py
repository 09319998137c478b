"""The open savepoints of a session, and what other tasks have done inside them.

A savepoint belongs to the context that began it: its task, and the tasks and threads
that this one starts from then on, which inherit the context. The connection, and so the
savepoint, is also that of every other task of the unit. What those do while it is open
is rolled back with it, and none of them would know.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol
from weakref import ref

from sqlalchemy import Connection
from sqlalchemy.orm import SessionTransaction

from .._concurrency.inside import enter, leave, things_around
from .._driver.savepoint_internals import is_in_block, name_on
from .._driver.sqlalchemy_internals import locks_rows
from .._sql.savepoint_text import SavepointCommand, SavepointStep
from .._sql.write_detection import known_to_read
from ..errors import UnexpectedRollbackError, UsageError

__all__ = ["OpenSavepoints", "SavepointOwner", "committed_beside"]

_LOST = (
    "the work of this unit is lost: while another task or thread worked beside it, a "
    "savepoint was {}. All tasks of a unit share its connection, and so its open "
    "savepoint: wait for the task that has begun it, or give that task a unit of its "
    "own: `db.transaction()`"
)
_FLUSH_LOST = (
    "the work of this unit is lost: changes of the session that were not flushed "
    "before a savepoint were flushed inside of it, and were rolled back with it. Call "
    "`session.flush()` before a savepoint of the connection, or write "
    "`session.begin_nested()`, which does"
)
_COMMITTED_BESIDE = (
    "session.commit() would store half of what another task or thread does in a "
    "transaction() block or a savepoint of this unit of work. Await what you start, or "
    "give it a unit of its own: `db.transaction()`"
)


class _Damage(IntEnum):
    """What the ends of savepoints mean for the transaction; it may only rise."""

    NONE = 0
    RELEASED_TOO_EARLY = 1
    """One was to be rolled back, and could not be any more."""
    ROLLED_BACK = 2
    """One was rolled back, and the work of others with it."""
    ROLLED_BACK_FLUSH = 3
    """One was rolled back, and with it what was changed before, but flushed inside."""


_MESSAGES = {
    _Damage.RELEASED_TOO_EARLY: _LOST.format(
        "released, so that the one inside it could not be rolled back any more"
    ),
    _Damage.ROLLED_BACK: _LOST.format("rolled back, and that work with it"),
    _Damage.ROLLED_BACK_FLUSH: _FLUSH_LOST,
}


def committed_beside() -> UsageError:
    """Make the error of a `session.commit()` beside the block of another worker."""
    return UsageError(_COMMITTED_BESIDE)


class SavepointOwner(Protocol):
    """The unit, which does not end while another task is inside a savepoint."""

    def savepoint_begun(self, savepoint: object) -> bool:
        """Called in the task or thread that begins it.

        Return whether all that is done from now on is done inside of it.
        """
        ...

    def savepoint_ended(self, savepoint: object) -> None:
        """Called after *savepoint* was released or rolled back."""


class _SentSavepoint:
    """A savepoint of `connection.begin_nested()`, or that was sent as SQL."""

    __slots__ = ("__weakref__", "connection", "name", "unflushed")

    def __init__(self, connection: int, name: str, unflushed: Any) -> None:
        self.connection = connection
        """The `id()` of its loan."""
        self.name = name
        self.unflushed = unflushed
        """The objects whose changes were not flushed before it, by identity."""


_Savepoint = SessionTransaction | _SentSavepoint


class OpenSavepoints:
    """The savepoints of one session, and of its connections.

    A session sends SAVEPOINT later, before the first statement, which may be that of
    another task: what counts is who has called `session.begin_nested()`.
    """

    __slots__ = ("_damage", "_open", "_owner", "_released_by_others", "_unflushed")

    def __init__(self, owner: SavepointOwner, unflushed: Callable[[], Any]) -> None:
        self._owner = owner
        self._unflushed = unflushed
        self._open: dict[_Savepoint, bool | None] = {}
        """Each, and whether another task or thread has done anything inside it.

        `None`: all tasks and threads are a part of it.
        """
        self._damage = _Damage.NONE
        self._released_by_others: list[_Savepoint] = []
        """Those released by a task or thread that was not inside of them."""

    def begun(self, savepoint: _Savepoint) -> None:
        self.note_work()
        self._open[savepoint] = False
        enter(savepoint)

    def contains_all(self, savepoint: _Savepoint) -> None:
        """Take what any task or thread does for a part of it."""
        self._open[savepoint] = None

    def ended(self, savepoint: _Savepoint, *, released: bool) -> bool:
        """Record its end; return whether the caller is inside of it."""
        holds_work_of_others = self._open.pop(savepoint, False)
        is_own = leave(savepoint) or holds_work_of_others is None
        if released and not is_own:
            self._released_by_others.append(savepoint)
        if holds_work_of_others and not released:
            self._note(_Damage.ROLLED_BACK)
        if isinstance(savepoint, _SentSavepoint) and not released:
            self._check_flushes(savepoint)
        return is_own

    def _check_flushes(self, savepoint: _SentSavepoint) -> None:
        """A session flushes before its own savepoints, but not before others."""
        if savepoint.unflushed and savepoint.unflushed - self._unflushed():
            self._note(_Damage.ROLLED_BACK_FLUSH)

    def found_ended(self) -> None:
        """Called if a savepoint that is to be rolled back has ended before."""
        if self._released_by_others:
            self._note(_Damage.RELEASED_TOO_EARLY)

    def _note(self, damage: _Damage) -> None:
        self._damage = max(self._damage, damage)

    @property
    def are_lost(self) -> bool:
        """Whether the transaction can't be committed any more."""
        return self._damage is not _Damage.NONE

    def check(self) -> None:
        """Raise `UnexpectedRollbackError` if the transaction must not be committed."""
        if self.are_lost:
            raise UnexpectedRollbackError(_MESSAGES[self._damage])

    def check_commit(self) -> None:
        """Raise `UsageError` if others are in the block of one that is released.

        `session.commit()` does that. One that was begun without a block may be that of
        a thread that has ended.
        """
        if any(map(is_in_block, self._released_by_others)):
            raise committed_beside()

    def note_work(self) -> None:
        """Record that this task or thread does what may be rolled back."""
        inside = things_around()
        for savepoint in self._open:
            if self._open[savepoint] is False and ref(savepoint) not in inside:
                self._open[savepoint] = True

    def note_statement(self, statement: str, context: Any) -> None:
        """Record a statement, unless it only reads, and takes no locks."""
        compiled = getattr(context.compiled, "statement", None)
        if not known_to_read(context, statement) or locks_rows(compiled):
            self.note_work()

    @property
    def of_connections(self) -> list[object]:
        """Those that the session has not begun."""
        return [each for each in self._open if isinstance(each, _SentSavepoint)]

    def note_command(
        self, loan: object, command: SavepointCommand, sent: Any
    ) -> list[_Savepoint]:
        """Record a *command* that is about to be sent on the connection of *loan*.

        *sent* is its execution context. What the session itself sends for one of its
        own savepoints does nothing. Returns those that are rolled back by it.
        """
        if command.step is not SavepointStep.BEGIN:
            return self._end_named(id(loan), command, sent)
        if sent.is_text or self._have_all_joined(sent.root_connection):
            unflushed = self._unflushed()
            self._begun_by_sql(_SentSavepoint(id(loan), command.name, unflushed))
        return []

    def _begun_by_sql(self, savepoint: _SentSavepoint) -> None:
        self.begun(savepoint)
        if self._owner.savepoint_begun(savepoint):
            self.contains_all(savepoint)

    def transaction_ended(self) -> None:
        """Forget those that were sent as SQL, and not ended."""
        for savepoint in self.of_connections:
            self._owner.savepoint_ended(savepoint)

    def _have_all_joined(self, connection: Connection) -> bool:
        session_savepoints = (
            each for each in self._open if isinstance(each, SessionTransaction)
        )
        return all(name_on(each, connection) for each in session_savepoints)

    def _end_named(
        self, loan: int, command: SavepointCommand, sent: Any
    ) -> list[_Savepoint]:
        """End the last one of that name, and those that were begun inside it.

        SQLAlchemy ends those of its session, also after a ROLLBACK TO of SQL's.
        """
        inside: list[_Savepoint] = []
        for each in reversed(self._open):
            if isinstance(each, _SentSavepoint):
                name = each.name if each.connection == loan else None
            else:
                name = name_on(each, sent.root_connection) if sent.is_text else None
            if name is not None:
                inside.append(each)
            if name == command.name:
                break
        else:
            return []
        if command.step is SavepointStep.RELEASE:
            self._end_all(inside, released=True)
            return []
        undone = [*inside]
        if sent.is_text:  # which leaves it open
            self._undone(inside.pop())
        self._end_all(inside, released=False)
        return undone

    def _end_all(self, savepoints: list[_Savepoint], *, released: bool) -> None:
        for each in savepoints:
            if isinstance(each, _SentSavepoint):
                self.ended(each, released=released)
                self._owner.savepoint_ended(each)
            elif not released:
                self._undone(each)

    def _undone(self, savepoint: _Savepoint) -> None:
        """Record that what was done inside is undone; it is open still."""
        if self._open[savepoint]:
            self._open[savepoint] = False
            self._note(_Damage.ROLLED_BACK)
        if isinstance(savepoint, _SentSavepoint):
            self._check_flushes(savepoint)
