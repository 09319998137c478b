"""Connections that are released after each statement, until a transaction begins.

SQLAlchemy calls the `get_bind()` of a session for an engine before each statement of a
session that is not connected, and executes it by `Connection.execute()`. So an engine
whose connections know when their statement is over is all that is needed: the loads,
refreshes and lazy loads of the ORM take the same way, and nothing private is replaced.
What a statement does is known when it is compiled; so it is decided at the driver's
door whether it is executed outside of a transaction, or one has to begin before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy
from sqlalchemy.exc import IllegalStateChangeError

from .._driver.driver_connection import in_transaction
from .._driver.postgresql_begin import set_autocommit
from .._sql.plain_reads import is_plain_read
from .connection_state import known_state
from .loan import Loan
from .unit_begin import replace_connection, was_dropped

__all__ = ["StatementConnection", "StatementEngine", "StatementUser", "execute_first"]

_CONCURRENT = (
    "this session reads, or begins its transaction, at this moment; concurrent "
    "operations are not permitted"
)
T = TypeVar("T")
Execute = Callable[..., None]

_BUFFERED = {"asyncpg", "psycopg", "psycopg_async", "aiosqlite", "asyncmy", "aiomysql"}
_BUFFERED |= {"pymysql", "psycopg2"}
"""The drivers that have all rows of a statement once it is executed."""


class StatementUser(Protocol):
    """The session for which a connection has been taken."""

    def run(self, execute: Callable[[], T]) -> T:
        """Call *execute*, and then give the connection back, if nothing has begun."""
        ...


class StatementConnection(Connection):
    """A connection whose *user* gives it back after its statement."""

    user: StatementUser | None = None
    """`None` once a transaction has begun, and for other users."""

    def execute(self, *args: Any, **options: Any) -> Any:
        if self.user is None:
            return super().execute(*args, **options)
        execute = super().execute
        return self.user.run(lambda: execute(*args, **options))

    def scalar(self, *args: Any, **options: Any) -> Any:
        if self.user is None:
            return super().scalar(*args, **options)
        scalar = super().scalar
        return self.user.run(lambda: scalar(*args, **options))


class StatementEngine(OptionEngine):
    """An engine with such connections; in all else it is the one it is made of."""

    def connect(self) -> StatementConnection:
        return StatementConnection(self)


def execute_first(
    execute: Execute, loan: Loan, cursor: Any, args: tuple[Any, ...], context: Any
) -> Any:
    """Execute a statement for which no transaction has begun, or begin one.

    Returns the cursor to execute it with, if a transaction has begun. Raises
    `IllegalStateChangeError` if another task or thread is doing so at this moment.
    """
    if context.execution_options.get("unitwork_own"):
        return cursor  # a part of the beginning
    if loan.statements_in_flight > 1:
        raise IllegalStateChangeError(_CONCURRENT)
    undecided = loan.undecided
    has_begun = undecided is not None and undecided.has_begun
    if not has_begun and is_plain_read(context, args[0]):
        _execute_outside(execute, cursor, args, context)
        return None
    if undecided is not None:
        driver_connection = loan.driver_connection
        undecided.begin()
        if loan.driver_connection is not driver_connection:
            return _new_cursor(context)
    return cursor


def _execute_outside(
    execute: Execute, cursor: Any, args: tuple[Any, ...], context: Any
) -> None:
    """Execute a plain read outside of a transaction, and fetch all of its rows.

    If the server has dropped the connection, again on a new one: it has only read.
    """
    connection: Connection = context.root_connection
    state = known_state(connection)
    if in_transaction(state.driver_connection):  # that of a sandbox
        execute(cursor, *args, context)
    else:
        try:
            _execute_in_autocommit(execute, cursor, args, context)
        except Exception as error:
            if not was_dropped(connection, state, error):
                raise
            state = replace_connection(connection)
            cursor = _new_cursor(context)
            _execute_in_autocommit(execute, cursor, args, context)
        state.is_new = False
    if context.dialect.driver not in _BUFFERED and cursor.description is not None:
        rows = cursor.fetchall()
        strategy = FullyBufferedCursorFetchStrategy(cursor, initial_buffer=rows)
        context.cursor_fetch_strategy = strategy


def _new_cursor(context: Any) -> Any:
    context.cursor = context.create_cursor()
    return context.cursor


def _execute_in_autocommit(
    execute: Execute, cursor: Any, args: tuple[Any, ...], context: Any
) -> None:
    """Keep the driver from sending BEGIN, where that costs no round trip.

    MariaDB begins by itself, and SQLite does not begin before a SELECT.
    """
    if context.dialect.name != "postgresql":
        execute(cursor, *args, context)
        return
    pooled = context.root_connection.connection
    set_autocommit(pooled, True)
    try:
        execute(cursor, *args, context)
    finally:
        set_autocommit(pooled, False)
