"""The sessions of one unit that commit together, and the steps of each."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

from .._driver import sqlalchemy_internals
from .._session import operations
from .._session.state import CommitWithdrawn
from .._session.unit_session import UnitSession
from .._transaction.commit_status import fresh_connection, query_within
from ..errors import UsageError
from .order import CommitOrder
from .statements import (
    NoSuchPreparedTransaction,
    TwoPhaseDialect,
    commit_report_of,
)
from .xid import Xid

__all__ = ["Participant", "TwoPhaseCommit"]


class TwoPhaseCommit:
    """The two-phase commit of one unit, from one ending to the next."""

    __slots__ = ("_order", "_unit")

    def __init__(self, order: CommitOrder) -> None:
        self._order = order
        self.renew()

    def renew(self) -> None:
        """Take a new name, for the transactions that begin from now on."""
        self._unit = uuid4().hex

    def check(self, session: UnitSession, bind: Engine | Connection) -> None:
        """Raise `UsageError`, before it connects, if the session can't take part."""
        if session.owned:
            self._order.dialect(session.name, bind.engine)

    def begin(self, session: UnitSession, connection: Connection) -> None:
        """Name the transaction that has just begun, if its dialect needs that."""
        if not session.owned:
            return
        if len(session.connections) > 1:
            raise UsageError(
                f"database {session.name!r} has several engines, and can't take part "
                "in a two-phase commit; make it several databases"
            )
        dialect = self._order.dialect(session.name, connection.engine)
        loan = session.loans[-1]
        if dialect.names_at_begin and not loan.client_side_read_only:
            dialect.begin(connection, str(self._xid(session, 1)))

    def _xid(self, session: UnitSession, witness: int) -> Xid:
        position = self._order.position(session.name)
        return Xid(self._order.fingerprint, self._unit, witness, position)

    def participant(
        self, session: UnitSession, mark: Any, witness: UnitSession
    ) -> Participant:
        dialect = self._order.dialect(session.name, session.connections[0].engine)
        name = str(self._xid(session, self._order.position(witness.name)))
        begun_as = session.loans[0].xid
        if dialect.names_at_begin and begun_as != name:
            raise UsageError(
                f"the transaction in database {session.name!r} was kept open for a "
                "stream, and can't be committed together with one that began later; "
                "stream from a unit of its own: `async with db.transaction()`"
            )
        return Participant(session, dialect, name, mark)

    def mark(self, sync_session: Session, session: UnitSession) -> Any:
        """What identifies the transaction later; `None` if it has nothing to store."""
        if not session.connections or not session.loans:
            return None
        connection = session.connections[0]
        return self._order.dialect(session.name, connection.engine).mark(connection)


class Participant:
    """One session that takes part. Each method is one call of a plan's step."""

    def __init__(
        self, session: UnitSession, dialect: TwoPhaseDialect, name: str, mark: Any
    ) -> None:
        self.session = session
        self._dialect = dialect
        self._name = name
        self._mark = mark
        self._connection = session.connections[0]
        self._engine = self._connection.engine
        self._report = commit_report_of(self._connection)
        self._detached_since: float | None = None

    def prepare(self, session: Session) -> None:
        if self.session.may_be_lost:
            operations.check_not_lost(session)
        sqlalchemy_internals.prepare(session)
        if self.session.owner.withdraws_commit:  # a listener to `before_commit`
            raise CommitWithdrawn
        with self._report.message():
            self._dialect.prepare(self._connection, self._name)

    def commit(self, session: Session) -> None:
        with self._report.message():
            self._dialect.end(self._connection, self._name, commit=True)
        self._report.answered()
        session.commit()

    def roll_back(self, session: Session) -> None:
        with self._report.message():
            self._dialect.end(self._connection, self._name, commit=False)

    def not_committed(self, error: BaseException) -> None:
        """Report *error* as the answer to what is prepared, unless there was one."""
        self._report.answered(error)

    def end_elsewhere(self, limit: float, *, commit: bool) -> bool | None:
        """Try on another connection; whether it was committed, `None` if unknown."""
        until = time.monotonic() + limit  # afterwards `recover()` may have decided

        def end() -> bool | None:
            with fresh_connection(self._engine) as connection:
                self._dialect.open(connection)
                if not self._is_detached(connection) or time.monotonic() > until:
                    return None
                try:
                    self._dialect.end(connection, self._name, commit=commit)
                except NoSuchPreparedTransaction:
                    return self._dialect.find_outcome(
                        connection, self._name, self._mark, requested=commit
                    )
                return commit

        return query_within(end, self.session.is_async, limit)

    def _is_detached(self, connection: Connection) -> bool:
        """Whether its connection has ended, and some time ago where that matters."""
        if not self._dialect.is_detached(connection, self._mark):
            self._detached_since = None
            return False
        now = time.monotonic()
        self._detached_since = self._detached_since or now
        return now - self._detached_since >= self._dialect.detached_after
