"""The sessions of one unit: one for each database that it uses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from threading import RLock
from typing import Protocol

from sqlalchemy.orm import SessionTransaction

from .._concurrency.fork import renew_after_fork
from .._session.database_core import DatabaseCore
from .._session.owner import SessionOwner
from .._session.state import Access
from .._session.unit_session import UnitSession
from .._transaction.hold import ConnectionUse
from ..errors import UsageError

__all__ = ["Sessions", "check_not_blocked", "sessions_around"]

_OPEN, _OUTSIDE, _REFUSED, _CLOSED = Access
_Lock = type(RLock())  # `RLock()` is a function that looks for it each time
_changing = renew_after_fork(RLock())
"""For all units: held for a moment, never while other code runs."""


class Sessions:
    """The sessions of one unit, by their databases. The only owner of them."""

    by_database: dict[DatabaseCore, UnitSession]
    """Replaced, never changed: another thread may be reading it."""
    are_timed = False
    """Whether units that take long with one of them are to be logged."""
    _access: Access
    _outside: Sequence[str] = ()
    """The names of the `outside()` blocks that are open."""

    def __init__(self) -> None:
        self.by_database = {}
        self._access = _OPEN
        self._opening = _Lock()
        """Reentrant: a database may call the application to get its engine."""

    def __iter__(self) -> Iterator[UnitSession]:
        return iter(self.by_database.values())

    def items(self) -> Collection[tuple[DatabaseCore, UnitSession]]:
        return self.by_database.items()

    def find(self, database: DatabaseCore) -> UnitSession | None:
        return self.by_database.get(database)

    def open(
        self, database: DatabaseCore, owner: SessionOwner[UnitSession]
    ) -> UnitSession:
        """Make the session of *database*, unless there is one.

        Raises `SessionEndedError` if the unit is closed meanwhile.
        """
        with self._opening:  # two threads of one unit need one session
            session = self.by_database.get(database)
            if session is not None:
                return session
            session = database.open_session(owner)
            with _changing:
                access = self._access
                if access is not _CLOSED:
                    self.by_database = {**self.by_database, database: session}
                if access is _OUTSIDE:
                    session.enter_outside(self._outside[-1])
        if session.settings.slow_unit_warning is not None:
            self.are_timed = True
        if access is _REFUSED:
            session.refuse()
        elif access is _CLOSED:
            session.close()
            database.open_units.closed(owner)
            session.check()
        return session

    @property
    def may_stream(self) -> bool:
        """Whether a server-side cursor was opened in one of them."""
        for session in self.by_database.values():
            for loan in session.loans:
                if loan.server_side_cursor is not None:
                    return True
        return False

    def streaming(self) -> list[UnitSession]:
        sessions = self.by_database.values()
        return [each for each in sessions if each.is_streaming and each.in_transaction]

    def transactions_beside(self, session: UnitSession) -> list[SessionTransaction]:
        """Those that are open in other sessions than *session*."""
        others = [x.sync_session for x in self if x is not session]
        found = [other.get_transaction() for other in others]
        return [transaction for transaction in found if transaction is not None]

    @property
    def may_have_written(self) -> bool:
        return any(session.may_have_written for session in self)

    @property
    def use(self) -> ConnectionUse:
        """How long they have held connections; to be read before they are closed."""
        found = [session.use for session in self]
        return ConnectionUse(
            sum(each.connections for each in found),
            sum(each.held for each in found),
            sum(each.idle for each in found),
            max((each.longest_idle for each in found), default=0.0),
            tuple(dict.fromkeys(pool for each in found for pool in each.pools)),
        )

    def to_end(
        self,
        order: Mapping[str, DatabaseCore],
        *,
        kept_open: Collection[UnitSession],
    ) -> list[UnitSession]:
        """Those with something to commit, in *order*, but for those *kept_open*."""
        by_database = self.by_database
        if len(by_database) > 1:
            by_database = {
                each: by_database[each]
                for each in order.values()
                if each in by_database
            }
        return [
            session
            for session in by_database.values()
            if session.has_work and session not in kept_open
        ]

    def refuse(self) -> None:
        with _changing:  # as `_move()` does
            if self._access is not _CLOSED:
                self._access = _REFUSED
            sessions = self.by_database.values()
        for session in sessions:
            session.refuse()

    def reopen(self) -> None:
        with _changing:
            if self._access is not _CLOSED:  # as `_move()` does
                self._access = _OUTSIDE if self._outside else _OPEN
            for session in self.by_database.values():
                session.reopen()
                if self._outside:
                    session.enter_outside(self._outside[-1])

    def forget_replicas(self) -> None:
        """Let the next transactions choose again where they read from."""
        for session in self.by_database.values():
            if session.reading is not None:
                session.reading.forget_choice()

    def enter_outside(self, what: str) -> None:
        """Refuse statements, until the last `outside()` block is left."""
        with _changing:
            self._outside = [*self._outside, what]
            if self._access is _OPEN:
                for session in self._move(_OUTSIDE).values():
                    session.enter_outside(what)

    def leave_outside(self, what: str) -> None:
        with _changing:
            outside = list(self._outside)
            outside.remove(what)
            self._outside = outside
            if not self._outside and self._access is _OUTSIDE:
                for session in self._move(_OPEN).values():
                    session.leave_outside()

    def _move(self, access: Access) -> dict[DatabaseCore, UnitSession]:
        """Let a session that is being opened have the same *access*."""
        with _changing:
            if self._access is not _CLOSED:
                self._access = access
            return self.by_database

    def release_unused_permits(self) -> None:
        for session in self.by_database.values():
            session.release_unused_permit()

    def abort_connections(self) -> None:
        for session in self:
            session.abort_connections()

    def close(self, owner: SessionOwner[UnitSession]) -> None:
        """Close all sessions, and drop them."""
        _changing.acquire()  # `with` would cost more than this
        self._access = _CLOSED
        closing, self.by_database = self.by_database, {}
        _changing.release()
        for database, session in closing.items():
            session.close()
            database.open_units.closed(owner)


class _Nested(Protocol):
    """What a unit is to the units that it encloses."""

    sessions: Sessions

    @property
    def parent(self) -> _Nested | None: ...

    @property
    def is_open(self) -> bool: ...

    @property
    def may_write(self) -> bool: ...


def sessions_around(
    unit: _Nested, database: DatabaseCore
) -> Iterator[tuple[_Nested, UnitSession]]:
    """Yield the enclosing units with a session of *database*, and that session."""
    outer = unit.parent
    while outer is not None and outer.is_open:
        session = outer.sessions.find(database)
        if session is not None:
            yield outer, session
        outer = outer.parent


def check_not_blocked(unit: _Nested, database: DatabaseCore) -> None:
    """Raise `UsageError` if *unit* would wait for an enclosing one without end."""
    for outer, session in sessions_around(unit, database):
        if _is_blocked(unit, outer, session, database):
            raise UsageError(
                f"database {database.name!r} admits one unit at a time, and the "
                "enclosing unit is it: this block would never be admitted. Use "
                '`transaction(nested="join")` or `nested="savepoint"`'
            )


def _is_blocked(
    unit: _Nested, outer: _Nested, session: UnitSession, database: DatabaseCore
) -> bool:
    """Whether *session* of *outer* holds the only connection, or the write lock."""
    if not session.owned:
        return False  # all units share the session of a test
    factory = database.factory
    connected = session.in_transaction and bool(session.connections)
    if factory.capacity == 1:
        return connected or session.holds_permit
    wrote = session.may_have_written
    both_write = (outer.may_write or wrote) and unit.may_write
    return factory.takes_write_lock and connected and both_write
