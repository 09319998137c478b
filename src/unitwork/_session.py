"""The session of a unit: SQLAlchemy's own, with a fence that closes when the unit ends.

What happens inside a session is written here once, for the sync `Session`; an
`AsyncSession` gets it through its `sync_session_class`.
"""

from __future__ import annotations

import logging
from asyncio import Lock
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import IllegalStateChangeError, InvalidRequestError
from sqlalchemy.orm import Session, SessionTransaction

from ._classify.classification import Phase, classify
from ._engine.begin import (
    BindCache,
    TransactionCharacteristics,
    apply,
    is_autocommit,
)
from ._engine.commit_status import PendingVerification, verifier_for
from ._engine.connection_state import state_of
from ._engine.driver_connection import abort, is_aborted
from ._engine.lost_work import unexpected_rollback
from .errors import SessionEndedError

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncSession

    from ._engine.admission import AdmissionGate
    from ._engine.connection_state import ConnectionState
    from ._unit import UnitOfWork
    from .options import DatabaseSettings

__all__ = ["Lease", "accept", "commit", "fenced", "hooked", "rollback", "verify"]

log = logging.getLogger("unitwork")

REMEDY = (
    "this session's unit of work has ended ({ended}). For work after the response (a "
    "background task, a task of your own) or in a hook, open a unit of its own: "
    "`{word} db.transaction() as session:`"
)


class Lease:
    """One session for as long as its unit lasts, and the connections that it uses."""

    __slots__ = (
        "_binds",
        "_entering",
        "_gate",
        "asks",
        "committing",
        "connections",
        "defers_write_lock",
        "doubts",
        "ended",
        "held",
        "is_async",
        "lines",
        "name",
        "owned",
        "places",
        "session",
        "settings",
        "sync_session",
        "unit",
        "wanting",
    )

    def __init__(
        self,
        session: Session | AsyncSession,
        *,
        unit: UnitOfWork,
        gate: AdmissionGate | None,
        settings: DatabaseSettings,
        binds: BindCache | None,
        name: str,
        owned: bool = True,
    ) -> None:
        self.name = name
        self.session = session
        sync = session if isinstance(session, Session) else session.sync_session
        self.sync_session: Session = sync
        self.is_async = session is not sync
        self.unit: UnitOfWork | None = unit
        self.settings = settings
        self.owned = owned
        """Whether it is ours to close; a test's own session is not."""
        self.ended: UnitOfWork | None = None
        """The unit, once it is over: from then on the session refuses to be used."""
        self.connections: list[Connection] = []
        self.lines: list[ConnectionState] = []
        self.doubts: list[PendingVerification] | None = None
        """Set while COMMIT is under way: whom to ask if its answer does not come."""
        self.asks: TransactionCharacteristics | None = None
        """What the transaction has asked for, or would now if it has yet to begin."""
        self.committing = False
        """Whether `session.commit()` was called by hand, and has not succeeded yet."""
        self.held = False
        """Whether its transaction is to last as long as the response."""
        self.wanting = False
        """Whether it has asked for a connection and has none yet."""
        self._binds = binds
        self._gate = gate
        self.places: list[None] = []
        """That which the gate has given it, if there is a gate."""
        self.defers_write_lock = binds is not None and binds.defers_write_lock
        """Whether a transaction that won't write is begun in another way."""
        self._entering: Lock | None = None
        sync._lease = self  # type: ignore[attr-defined]  # a test's own has it as well

    @property
    def patience(self) -> float:
        """Seconds that the end may wait for others that still use the session."""
        return self.settings.end_timeout

    @property
    def open(self) -> bool:
        """Whether there is something to commit or roll back."""
        return self.sync_session._transaction is not None

    @property
    def over(self) -> bool:
        """Whether it has let go of its session."""
        return not hasattr(self, "session")

    @property
    def holds(self) -> bool:
        """Whether it keeps a connection from others, or the right to one."""
        return bool(self.places) or (self.open and bool(self.connections))

    @property
    def streaming(self) -> bool:
        """Whether it is kept open for a stream: by a server-side cursor, or for all."""
        if self.held:
            return True
        for line in self.lines:
            if line.server_side_cursor is not None and line.is_streaming:
                return True
        return False

    @property
    def wrote(self) -> bool:
        """Whether there may be something to store."""
        session = self.sync_session
        unflushed = session.new or session.dirty or session.deleted
        return bool(unflushed) or any(line.wrote for line in self.lines)

    @property
    def stores_at_once(self) -> bool:
        """Whether it has written, and each statement has committed itself."""
        if not any(line.wrote for line in self.lines):
            return False
        return any(is_autocommit(each) for each in self.connections)

    @property
    def busy(self) -> bool:
        """Whether a statement is under way: some other task or thread has sent it."""
        for line in self.lines:
            if line.statements_in_flight:
                return True
        return False

    @property
    def commits_by_hand(self) -> bool:
        """Whether a COMMIT is under way that the unit itself has not asked for."""
        if not self.committing or self.busy:  # a flush comes first
            return False
        return any(connection.in_transaction() for connection in self.connections)

    @property
    def suspect(self) -> bool:
        """Whether an error inside the transaction may have cost the work."""
        for line in self.lines:
            if line.failure is not None:
                return True
        for connection in self.connections:
            if connection.invalidated:
                return True
        return not self.sync_session.is_active

    def check(self) -> None:
        if self.ended is not None:
            word = "async with" if self.is_async else "with"
            raise SessionEndedError(REMEDY.format(ended=self.ended._fate, word=word))

    def begin(self) -> None:
        """Note that a transaction begins: in the thread of whoever uses the session."""
        if self.committing and self.unit is not None:
            self.unit._never_again("after a session.commit() that failed it went on")
        self.connections.clear()
        self.lines.clear()
        self.doubts = None
        self.committing = self.held = False
        if self._gate is None:
            return
        self._gate.warn_on_event_loop()
        if self.places:
            return
        asked, self.wanting = self.wanting, True
        if self._gate.acquire_in_thread():
            self._take_place()
        self.wanting = asked

    async def enter(self) -> None:
        """Wait on the event loop for the right to a connection."""
        if self._gate is None or self.places:
            return
        if self._entering is None:
            self._entering = Lock()
        async with self._entering:  # two tasks of one unit need one place
            if not self.places:
                await self._gate.acquire()
                self._take_place()

    def _take_place(self) -> None:
        self.places.append(None)
        if self.ended is not None:  # nobody tells a waiting thread that it is too late
            self.leave()
            self.check()

    def leave(self) -> None:
        """Give the place in the gate back; of two threads that do so only one will."""
        if not self.places:
            return
        with suppress(IndexError):
            while self.places and self._gate is not None:
                self.places.pop()
                self._gate.release()

    def connected(self, connection: Connection) -> None:
        if self.ended is not None:  # connected for a unit that has ended meanwhile
            connection.invalidate()
            connection.close()
            self.check()
        self.wanting = False
        self.connections.append(connection)
        if (line := state_of(connection)) is not None:
            line.reset()
            self.lines.append(line)
            if self.asks is not None and self._binds is not None:
                apply(
                    connection, line, self._binds.find(connection.engine, self.asks)[1]
                )
            if self.unit is not None and (together := self.unit._together) is not None:
                together.begin(self, connection)

    def bind(self, bind: Engine | Connection, *, begun: bool) -> Engine | Connection:
        """The engine that begins as the unit has asked; *bind* is that for all."""
        if not begun or not self.connections:
            self.wanting = True
            self.asks = self.unit._asks(self) if self.unit is not None else None
            if self.unit is not None and (together := self.unit._together) is not None:
                together.check(self, bind)
        if self.asks is None or self._binds is None or not isinstance(bind, Engine):
            return bind
        return self._binds.find(bind, self.asks)[0]

    def send_commit(self) -> None:
        """Note that COMMIT is about to be sent, and how to learn what becomes of it."""
        wanted = self.settings.verify_commit if self.owned else False
        doubts: list[PendingVerification] = []
        for connection in self.connections if wanted else ():
            line = state_of(connection)
            verifier = verifier_for(connection, wanted)
            if line is None or not line.wrote or verifier is None:
                continue
            mark = verifier.before_commit(connection)
            if mark is not None:
                doubts.append(PendingVerification(connection.engine, verifier, mark))
        self.doubts = doubts

    def in_doubt(self, error: BaseException) -> bool:
        """Whether the work may be stored although COMMIT has raised *error*."""
        return self.doubts is not None and classify(error, phase=Phase.COMMIT).unknown

    def savepoint_rolled_back(self) -> None:
        """What failed inside it does not matter any more."""
        for line in self.lines:
            if not line.rolled_back_by_server:
                line.failure = None

    def discard(self) -> None:
        """Break off the connections: whoever waits for them gets an error."""
        for connection in self.connections:
            with suppress(InvalidRequestError):  # closed by its thread meanwhile
                if (line := state_of(connection)) is not None:
                    line.aborted_by_client = True
                    abort(connection.connection.driver_connection)

    def close(self, unit: UnitOfWork) -> None:
        """Refuse further use. No I/O: nothing is open by now, or it is discarded."""
        self.ended = unit
        if self.owned and not self.open:
            self.sync_session.close()
        self.leave()
        self.connections.clear()
        self.lines.clear()
        if not self.owned:
            self.sync_session._lease = None  # type: ignore[attr-defined]  # see above
        # The session knows its lease for good. Without the way back both are freed at
        # once, and not only when the garbage collector comes round.
        del self.session, self.sync_session
        self.unit = None


class _Fenced(Session):
    """Added to a session class: refuses work once the lease has ended."""

    _lease: Lease | None = None

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        lease = self._lease
        if lease is None:
            return super().get_bind(*args, **kwargs)
        lease.check()
        bind = super().get_bind(*args, **kwargs)
        return lease.bind(bind, begun=self._transaction is not None)

    def flush(self, *args: Any, **kwargs: Any) -> None:
        # Of a session that is just being rolled back SQLAlchemy would complain, too.
        if self._lease is not None:
            self._lease.check()
        super().flush(*args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        # Its objects have left it: SQLAlchemy would complain of them, not of the end.
        if self._lease is not None:
            self._lease.check()
        super().refresh(*args, **kwargs)

    def _autobegin_t(self, begin: bool = False) -> SessionTransaction:
        # Private to SQLAlchemy, the same in 2.0 and 2.1. Without it `add()` after the
        # end would still be refused (`close_resets_only=False`), in other words.
        lease = self._lease
        if lease is not None and self._transaction is None:
            lease.check()
            lease.begin()
        return super()._autobegin_t(begin)


@cache
def fenced(session_class: type[Session]) -> type[Session]:
    """Derive from *session_class* the class of sessions that know their lease."""
    made: type[Session] = type(session_class.__name__, (_Fenced, session_class), {})
    event.listen(made, "after_begin", _after_begin)
    event.listen(made, "before_commit", _before_commit)
    for name, listener in _FOR_HOOKS.items():
        event.listen(made, name, listener)
    return made


@contextmanager
def hooked(session: Session) -> Iterator[None]:
    """Let hooks follow what becomes of a session that a test has made."""
    if isinstance(session, _Fenced):
        yield
        return
    for name, listener in _FOR_HOOKS.items():
        event.listen(session, name, listener)
    try:
        yield
    finally:
        for name, listener in _FOR_HOOKS.items():
            event.remove(session, name, listener)


def _after_begin(
    session: _Fenced, transaction: SessionTransaction, connection: Connection
) -> None:
    if session._lease is not None and not transaction.nested:
        session._lease.connected(connection)


def _before_commit(session: _Fenced) -> None:
    lease = session._lease
    if lease is None or session.in_nested_transaction():
        return
    lease.committing = lease.doubts is None  # else it is the unit itself
    if lease.suspect:
        verify(session)


def _after_commit(session: Session) -> None:
    lease = _lease_of(session)
    if lease is None or lease.doubts is not None:  # it is the unit itself that commits
        return
    if not session.in_nested_transaction():
        lease.committing = False
    began = bool(lease.connections) or not lease.owned
    if began and lease.unit is not None and not session.in_nested_transaction():
        lease.unit._committed_by_hand()


def _after_soft_rollback(session: Session, transaction: SessionTransaction) -> None:
    lease = _lease_of(session)
    if lease is None:
        return
    if transaction.nested:
        lease.savepoint_rolled_back()
    if lease.unit is not None and lease.unit._hooks is not None:
        lease.unit._hooks.rolled_back(transaction)


_FOR_HOOKS: dict[str, Callable[..., None]] = {
    "after_commit": _after_commit,
    "after_soft_rollback": _after_soft_rollback,
}


def _lease_of(session: Session) -> Lease | None:
    lease: Lease | None = getattr(session, "_lease", None)
    return lease


def verify(session: Session) -> None:
    """Raise `UnexpectedRollbackError` if COMMIT would store nothing, and not say so."""
    lease = _lease_of(session)
    for connection in lease.connections if lease is not None else ():
        if connection.invalidated:  # lost, or cancelled in the middle of a statement
            cause = next((x.failure for x in lease.lines if x.failure), None)  # type: ignore[union-attr]  # there is one
            raise unexpected_rollback(cause) from cause
        line = state_of(connection)
        if line is None or (failure := line.failure) is None:
            continue
        if (
            not session.is_active
            or line.rolled_back_by_server
            or is_aborted(connection)
        ):
            raise unexpected_rollback(failure) from failure
        line.failure = None
    if not session.is_active:
        raise unexpected_rollback(None)


def commit(session: Session) -> None:
    """Commit, and let the lease know when COMMIT is sent."""
    session.flush()  # what is lost in here was lost before COMMIT was sent
    lease = _lease_of(session)
    if lease is None:
        session.commit()
        return
    lease.send_commit()
    session.commit()
    lease.doubts = None


def accept(session: Session) -> None:
    """End a transaction that was committed although COMMIT has failed. No I/O."""
    lease = _lease_of(session)
    if lease is None:
        return
    session.expunge_all()  # its objects keep what they have: a rollback would expire it
    for connection in lease.connections:
        with suppress(InvalidRequestError):  # closed meanwhile
            connection.invalidate()
    unit, lease.unit = lease.unit, None  # whose hooks are not to hear of it
    rollback(session)
    lease.unit = unit


def rollback(session: Session) -> None:
    """Roll back; throw away a connection that can't be. Raises only if cancelled."""
    try:
        session.rollback()
    except IllegalStateChangeError:
        raise  # somebody else is using the session just now
    except BaseException as error:
        session.invalidate()
        if not isinstance(error, Exception):
            raise
        log.warning("rollback failed; its connection is thrown away", exc_info=error)
