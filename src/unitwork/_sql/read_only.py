"""AUTOCOMMIT is for reads: what is not known to read gets a read-only transaction.

The database itself refuses to write in it. A single transaction around one statement is
safe behind a connection pooler, too, where a setting of the session is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy.util import await_only

from ..errors import ReadOnlyError
from .write_detection import controls_transaction, known_to_read, known_to_write

__all__ = ["only_reading", "refused_in_autocommit"]

# With a snapshot it can't be made read-write any more.
_POSTGRESQL = "BEGIN READ ONLY; SELECT 1"
_BEGIN = {
    "postgresql": _POSTGRESQL,
    "mysql": "START TRANSACTION READ ONLY",
    "mariadb": "START TRANSACTION READ ONLY",
}


@contextmanager
def only_reading(context: Any, statement: str) -> Iterator[None]:
    """Let *statement*, executed inside, not write; raise `ReadOnlyError` if it would.

    SELECTs of SQLAlchemy's without functions cost nothing; others two round trips,
    where the database has read-only transactions. (SQLite has a pragma for all of it.)
    """
    dialect = context.dialect.name
    if known_to_read(context, statement):
        yield
        return
    if known_to_write(context, statement) or controls_transaction(dialect, statement):
        raise refused_in_autocommit()
    begin = _BEGIN.get(dialect)
    if begin is None:
        yield
        return
    options = context.execution_options
    if options.get("stream_results") or options.get("yield_per"):
        raise ReadOnlyError(
            "isolation_level='AUTOCOMMIT' can't stream SQL text or functions: the "
            "database would not refuse to write. Use read_only=True, and a transaction"
        )
    with _transaction(context, begin):
        yield


def refused_in_autocommit(by: BaseException | None = None) -> ReadOnlyError:
    """Make the error for a statement that would write; *by*: the database's own."""
    return ReadOnlyError(
        "isolation_level='AUTOCOMMIT' is for reads: there is no transaction, and what "
        "this statement writes could not be rolled back"
        + (f". The database has refused it: {by}" if by is not None else "")
    )


@contextmanager
def _transaction(context: Any, begin: str) -> Iterator[None]:
    _send(context, begin)
    try:
        yield
    except Exception:
        with suppress(Exception):  # the first error is the one to raise
            _send(context, "ROLLBACK")
        raise
    _send(context, "COMMIT")


def _send(context: Any, sql: str) -> None:
    fairy = context.root_connection.connection
    if context.dialect.driver == "asyncpg":  # its cursors prepare a statement each
        await_only(fairy.driver_connection.execute(sql))
        return
    cursor = fairy.cursor()
    try:
        cursor.execute(sql)
    finally:
        cursor.close()
