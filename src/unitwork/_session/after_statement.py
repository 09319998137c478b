"""Release mode "statement": a session holds a connection only while it reads.

The transaction begins with the first statement that is no plain read, and then lives as
always. What is released is ended by `SessionTransaction.close()`: unlike `rollback()`
and `commit()` it expires nothing. So a session that has only read is as one that has
done nothing: there is nothing to commit, and its next statement connects again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, TextClause
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session, SessionTransaction, SessionTransactionOrigin

from .._driver.driver_connection import in_transaction
from .._driver.sqlalchemy_internals import (
    has_pending,
    is_connecting,
    take_connections,
)
from .._engine.begin import STATEMENT, TRANSACTION, TransactionCharacteristics
from .._sql.sql_text import MYSQL
from .._transaction.connection_state import loan_of, state_of
from .._transaction.pooler import check_mode
from .._transaction.statement_release import StatementConnection
from ..errors import UsageError
from .beginning import apply_characteristics, begin
from .releasing import give_back
from .state import Access
from .unit_session import UnitSession

__all__ = ["BeginsBefore", "characteristics", "use_of"]

T = TypeVar("T")

_AUTOBEGIN = SessionTransactionOrigin.AUTOBEGIN
_LEVELS = ("READ COMMITTED", "READ UNCOMMITTED")
_LEVEL = (
    "release='statement' can't keep what the isolation level {level!r} of database "
    "{name!r} promises: that all statements of a unit read the same snapshot. Create "
    "its engine with isolation_level='READ COMMITTED', or use release='transaction'"
)


def characteristics(
    session: UnitSession, wanted: TransactionCharacteristics, statement: Any
) -> TransactionCharacteristics:
    """The *wanted* ones; without the release mode, if the transaction begins now.

    *statement* may be a plain read; `True`: it is not known. Not so where something is
    to be flushed, even if autoflush is off: the unit is about to write.
    """
    sync_session = session.sync_session
    if is_connecting(sync_session):  # another task: SQLAlchemy refuses this one
        return session.begun_with or wanted
    transaction = sync_session.get_transaction()
    session.activity.found_open = transaction is not None
    if (
        _may_be_read(statement)
        and (transaction is None or transaction.origin is _AUTOBEGIN)
        and not sync_session.in_nested_transaction()
        and not session.activity.is_flushing
        and not has_pending(sync_session)
        # A listener of the application's may set what ends with a transaction.
        and len(sync_session.dispatch.after_begin) == 1
    ):
        return wanted
    return wanted._replace(release=TRANSACTION)


def _may_be_read(statement: Any) -> bool:
    if statement is True or isinstance(statement, TextClause):
        return True
    return bool(getattr(statement, "is_select", False))


def use_of(session: UnitSession, connection: Connection) -> ReadingUse | None:
    """What gives *connection* back; `None` if a transaction is to begin on it.

    Raises `UsageError` if the database's isolation level promises more than it keeps.
    """
    if not isinstance(connection, StatementConnection):
        return None
    binds, wanted = session.binds, session.begun_with
    if binds is None or wanted is None or wanted.release != STATEMENT:
        return None
    if session.connections:
        return None
    driver_connection = connection.connection.driver_connection
    if in_transaction(driver_connection) and not binds.nests:
        return None  # a listener of the application's has begun it
    transaction = session.sync_session.get_transaction()
    if transaction is None:
        return None
    given = connection.get_execution_options().get("isolation_level")
    if given != connection.engine.get_execution_options().get("isolation_level"):
        return None  # given to `session.connection()`
    try:
        _check_mode(session.name, connection, wanted.isolation_level)
    except UsageError:
        connection.close()
        raise
    connection.user = use = ReadingUse(session, transaction, connection)
    return use


def _check_mode(name: str, connection: Connection, level: str | None) -> None:
    """Raise `UsageError` if statements need a transaction; *level*: the unit's own."""
    check_mode(connection, "release='statement'", "release='transaction'")
    if level is None and connection.dialect.name != "sqlite":
        level = connection.get_execution_options().get("isolation_level")
        level = level or connection.default_isolation_level
        if level not in _LEVELS:
            raise UsageError(_LEVEL.format(level=level, name=name))


class ReadingUse:
    """One use of a connection, by one statement or by a transaction."""

    __slots__ = (
        "_connection",
        "_executing",
        "_found_open",
        "_session",
        "_transaction",
    )

    def __init__(
        self,
        session: UnitSession,
        transaction: SessionTransaction,
        connection: StatementConnection,
    ) -> None:
        self._found_open = session.activity.found_open
        """Whether its transaction was open before it, without a connection."""
        self._session = session
        self._transaction = transaction
        self._connection = connection
        self._executing = 0

    def run(self, execute: Callable[[], T]) -> T:
        return self._session.activity.read(partial(self._run, execute))

    def _run(self, execute: Callable[[], T]) -> T:
        self._executing += 1
        try:
            result = execute()
            if self._connection.user is self and self.has_begun:
                self.begin()  # to keep what a listener has written
            return result
        finally:
            self._executing -= 1
            # A listener may execute others, before this one.
            if not self._executing and self._connection.user is self:
                with suppress(IllegalStateChangeError):  # its unit ends it just now
                    self._end()

    def _end(self) -> None:
        """Give the connection back, without expiring anything."""
        transaction, session = self._transaction, self._session
        self._connection.user = None  # which leads back to here
        if transaction.session.get_transaction() is not transaction:
            return  # its unit has ended it meanwhile
        if session.connections != [self._connection]:
            return
        if self._found_open or has_pending(transaction.session):
            # Hooks and changes belong to it, so a rollback by hand has to find it.
            take_connections(transaction.session)
            give_back(self._connection)
        else:
            session.ends.released(transaction)
            give_back(self._connection)
            transaction.close()
            session.ends.has_read = True
        session.connections_released()
        session.owner.read_on()

    @property
    def has_begun(self) -> bool:
        """Whether something else has begun a transaction: a listener, by the driver.

        Not known in a sandbox. On MariaDB any read begins one: what counts there is
        whether the driver has sent something else.
        """
        binds, connection = self._session.binds, self._connection
        state = state_of(connection)
        if state is None or (binds is not None and binds.nests):
            return False
        if connection.dialect.name in MYSQL and not state.loan.was_bypassed:
            return False
        return in_transaction(state.driver_connection)

    def begin(self) -> None:
        """Begin the transaction, before the statement that needs it."""
        connection, session = self._connection, self._session
        state = state_of(connection)
        if state is None:
            return
        loan = state.loan
        before = time.monotonic()
        if self.has_begun:
            loan.has_begun()
        else:
            begin(session, connection, state)
            apply_characteristics(session, connection, loan)
        # Not before: a statement of another task would not be a part of it.
        connection.user = loan.undecided = None
        if loan.hold is not None and loan.hold.report is not None:
            loan.hold.report.begun(time.monotonic() - before)


class BeginsBefore(Session):
    """A session that begins before it lets go of its connection, or rolls back."""

    unitwork_session: UnitSession | None = None
    """Not private, as other modules read it, and named so that no subclass has it."""

    def rollback(self) -> None:
        found = self.unitwork_session
        if (
            found is not None
            and found.ends.has_read
            and found.access is Access.OPEN
            and not self.in_transaction()
        ):
            super().begin()  # it has read: expire that, and drop its hooks
        rollback: Callable[[], Any] = super().rollback
        # A coroutine, of an override: its caller closes it.
        return rollback()  # type: ignore[no-any-return]  # see above

    def connection(self, *args: Any, **options: Any) -> Connection:
        connection = super().connection(*args, **options)
        loan = loan_of(connection)
        if loan is not None and loan.undecided is not None:
            loan.undecided.begin()  # perhaps on another connection of the driver
        if self.unitwork_session is not None:  # its driver may be called
            self.unitwork_session.note_work()
            if (state := state_of(connection)) is not None:
                state.requested(connection)
        return connection
