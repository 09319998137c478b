"""What is known of one pooled connection, beyond what its driver says.

Statements are watched by engine events, without I/O: which are under way, whether one
of them failed or wrote, whether a server-side cursor is open.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from ._classify.classification import Classification, chain_to, classify, only_follows
from ._classify.error_codes import STALE
from .errors import ReadOnlyError, UnexpectedRollbackError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext

__all__ = [
    "KEY",
    "Line",
    "in_transaction",
    "is_aborted",
    "line_of",
    "unexpected",
    "watch",
]

KEY = "unitwork"
_MYSQL = {"mysql", "mariadb"}
_SERVER_STATUS_IN_TRANS = 0x0001  # MySQL protocol, status flags
_IDLE, _INERROR = 0, 3  # libpq, PGTransactionStatusType
_READ_ONLY = {("postgresql", "25006"), ("mysql", 1792), ("sqlite", 8)}
_MAY_WRITE = {"with", "explain"}
_WRITING = re.compile(
    r"\b(insert\s+into|delete\s+from|merge\s+into|update\b.{1,200}?\bset)\b",
    re.IGNORECASE | re.DOTALL,
)
_READS = {"select", "values", "table", "show", "set"} | {
    "savepoint",
    "release",
    "rollback",
    "begin",
    "xa",
}


class Line:
    """One connection, from the time it is made until it is closed."""

    __slots__ = (
        "branch",
        "driver_connection",
        "failure",
        "guarded",
        "loop",
        "lost",
        "pragmas",
        "prefix",
        "read_only",
        "returned_at",
        "severed",
        "statements",
        "stream",
        "wrote",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop | None, driver_connection: Any
    ) -> None:
        self.loop = loop
        self.driver_connection = driver_connection
        self.returned_at: float | None = None
        self.severed = False
        """Whether we have broken it off: perhaps too late for anybody to notice."""
        self.statements = 0
        """How many statements are on their way to the server and back."""
        self.stream: ReferenceType[Any] | None = None
        self.pragmas: dict[str, Any] = {}
        """Those of SQLite that the transaction has changed, as they were before."""
        self.begin()

    def begin(self) -> None:
        """A transaction begins: nothing has happened in it."""
        self.wrote = False
        self.prefix = ""
        """What each statement of it begins with."""
        self.branch = ""
        """The name of the XA transaction that is open, and not yet prepared."""
        self.read_only = False
        self.guarded = False
        """Whether it is we who refuse to write: there is no transaction."""
        self.failure: BaseException | None = None
        """The last statement error that no savepoint has undone."""
        self.lost = False
        """Whether the database has rolled everything back by itself."""

    def note(self, statement: str, context: Any) -> None:
        """A statement has been executed."""
        if not self.wrote:
            self.wrote = _writes(context, statement)
        options = context.execution_options
        if options and (options.get("stream_results") or options.get("yield_per")):
            self.stream = ref(context)

    @property
    def streaming(self) -> bool:
        """Whether a server-side cursor is still open, as far as can be told."""
        context = self.stream() if self.stream is not None else None
        return context is not None and _is_open(context.cursor)


def line_of(connection: Connection) -> Line | None:
    """The line of an open *connection*; `None` once it is closed or thrown away."""
    if connection.closed or connection.invalidated:
        return None
    line: Line | None = connection.info.get(KEY)
    return line


def in_transaction(driver_connection: Any) -> bool:
    """Ask the driver, without I/O, whether the connection is inside a transaction."""
    if driver_connection is None:
        return False
    ask = getattr(driver_connection, "is_in_transaction", None)
    if ask is not None:  # asyncpg, which raises once it has been terminated
        return not driver_connection.is_closed() and bool(ask())
    if (status := _libpq_status(driver_connection)) is not None:
        return status != _IDLE
    status = getattr(driver_connection, "server_status", None)
    if status is not None:  # pymysql, asyncmy, aiomysql
        return bool(status & _SERVER_STATUS_IN_TRANS)
    try:  # sqlite3, aiosqlite
        return bool(getattr(driver_connection, "in_transaction", False))
    except ValueError:  # aiosqlite, closed already
        return False


def _libpq_status(driver_connection: Any) -> int | None:
    """What libpq says of the transaction; `None` if the driver does not use it."""
    libpq = getattr(driver_connection, "pgconn", None)  # psycopg
    if libpq is None:
        libpq = getattr(driver_connection, "info", None)  # psycopg2
    status: int | None = getattr(libpq, "transaction_status", None)
    return status


def is_aborted(connection: Connection) -> bool:
    """Whether COMMIT would be a ROLLBACK: the server has given the transaction up.

    PostgreSQL does so after each error of a statement, and says nothing at COMMIT. A
    driver that doesn't know is asked by a round trip, so call this after an error only.
    """
    if connection.dialect.name != "postgresql":
        return False
    status = _libpq_status(connection.connection.driver_connection)
    if status is not None:
        return status == _INERROR
    try:
        connection.exec_driver_sql("SELECT 1")
    except DBAPIError:
        return True
    return False


def unexpected(error: BaseException | None) -> UnexpectedRollbackError:
    what = "an error" if error is None else type(error).__name__
    return UnexpectedRollbackError(
        f"the work of this unit is lost: {what} in the middle of it was swallowed, and "
        "after that nothing can be committed. Let the error through, or put the risky "
        "part into a savepoint: `session.begin_nested()`"
    )


def watch(engine: Engine) -> None:
    """Keep the lines of *engine* up to date.

    By events of the dialect. Those of the connection would make SQLAlchemy join two
    dispatchers for each connection, which costs more than all that unitwork does.
    """
    dialect = engine.dialect
    event.listen(engine, "do_execute", _watched(dialect.do_execute))
    event.listen(engine, "do_executemany", _watched(dialect.do_executemany))
    event.listen(engine, "do_execute_no_params", _watch_without_parameters)
    event.listen(engine, "handle_error", _statement_fails)


def _watched(execute: Callable[..., None]) -> Callable[..., bool]:
    def watched(cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        line = _line_at_work(context)
        if line is None:
            return False
        if line.lost:  # or it would begin a new transaction, that nobody looks after
            raise unexpected(line.failure) from line.failure
        if line.guarded and _writes(context, statement):
            raise ReadOnlyError(
                "isolation_level='AUTOCOMMIT' is for reads: there is no transaction, "
                "and what this statement writes could not be rolled back"
            )
        line.statements += 1
        try:
            execute(cursor, line.prefix + statement, parameters, context)
        finally:
            line.statements = max(0, line.statements - 1)  # reset if handed out anew
        line.note(statement, context)
        return True  # it is done

    return watched


def _watch_without_parameters(cursor: Any, statement: str, context: Any) -> bool:
    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        context.dialect.do_execute_no_params(cursor, statement, context)

    return _watched(execute)(cursor, statement, None, context)


def _line_at_work(context: Any) -> Line | None:
    try:
        line: Line | None = context.root_connection.connection.info.get(KEY)
    except NotImplementedError:  # SQLAlchemy is getting to know the server
        return None
    return line


def _writes(context: Any, statement: str) -> bool:
    """Whether a statement may have changed data; of SQL text the first word tells."""
    compiled = context.compiled
    if compiled is None or context.is_text:
        first = statement.split(None, 1)[0].lower() if statement else "select"
        if first in _MAY_WRITE:
            return _WRITING.search(statement) is not None
        return first not in _READS
    if context.isinsert or context.isupdate or context.isdelete or context.isddl:
        return True
    ctes = getattr(compiled, "ctes", None)
    return ctes is not None and any(cte.element.is_dml for cte in ctes)


def _statement_fails(failure: ExceptionContext) -> BaseException | None:
    """Note a failure; give the error to raise in its place, if there is a better one.

    A plan that is older than the schema: psycopg has one on each pooled connection.
    SQLAlchemy is told that they are of no use any more, and connects anew.
    """
    connection = failure.connection
    if connection is None or failure.execution_context is None:
        return None
    line = line_of(connection)
    if line is None:
        return None
    error = failure.sqlalchemy_exception or failure.original_exception
    found = classify(error)
    refused = _refusal(found) if line.read_only else None
    if found.reason == STALE.reason and connection.dialect.driver != "asyncpg":
        failure.is_disconnect = True
    alone = line.guarded or connection._is_autocommit_isolation()  # SQLAlchemy's own
    if not alone:
        _note_failure(line, connection, refused or error)
    return refused


def _refusal(found: Classification) -> ReadOnlyError | None:
    """Say it in words of ours if a database has refused to write."""
    if (found.family, found.code) not in _READ_ONLY:
        return None
    return ReadOnlyError(
        "this transaction only reads (read_only=True), and the database has refused to "
        f"write: {found.error}. Say read_only=False where something is written"
    )


def _note_failure(line: Line, connection: Connection, error: BaseException) -> None:
    if line.failure is not None and (line.lost or only_follows(error)):
        chain_to(error, line.failure)
        # A savepoint is gone, so all is; PostgreSQL can still go back to one.
        line.lost = line.lost or connection.dialect.name in _MYSQL
        return
    line.failure = error
    if connection.in_transaction():
        line.lost = line.lost or _has_rolled_back(error, connection, line)


def _has_rolled_back(error: BaseException, connection: Connection, line: Line) -> bool:
    """Whether the database has rolled the whole transaction back by itself."""
    found = classify(error)
    driver_connection = connection.connection.driver_connection
    if connection.dialect.name in _MYSQL:
        return found.poisons or _has_ended(connection, driver_connection)
    if in_transaction(driver_connection):
        return False
    # Before Python's legacy mode begins, at the first write, there is nothing to lose.
    legacy = getattr(driver_connection, "isolation_level", None) is not None
    return found.family != "sqlite" or line.wrote or found.poisons or not legacy


def _has_ended(connection: Connection, driver_connection: Any) -> bool:
    """Whether a transaction of MySQL or MariaDB has come to an end in the meantime.

    A lock timeout may have ended it, if the server is told so, and a procedure that
    rolls back before it fails. An error says nothing of that; any other answer does.
    """
    if not in_transaction(driver_connection):  # before the error, that is
        return False
    pooled = connection.connection.dbapi_connection
    try:
        connection.dialect.do_ping(pooled)  # type: ignore[arg-type]  # it is open
    except connection.dialect.loaded_dbapi.Error:
        return True
    return not in_transaction(driver_connection)


def _is_open(cursor: Any) -> bool:
    """Whether a driver's cursor still has rows to come; "yes" if it can't be told."""
    if cursor is None:
        return False
    driver_cursor = getattr(cursor, "_cursor", cursor)  # SQLAlchemy's async adapters
    if driver_cursor is None:
        return False
    if getattr(driver_cursor, "connection", cursor) is None:  # pymysql
        return False
    return not getattr(driver_cursor, "closed", False)
