"""Whether a transaction has written: by a query, where the database keeps that.

PostgreSQL: locks on relations that only writers take are held until the end of the
transaction, however the statement was sent; what it has changed in its catalogs, in
large objects too, is in its own statistics. (They still count earlier transactions for
some seconds: a transaction without an id has changed nothing.) SQLite counts the rows
that a connection has changed. Other databases can't tell: what is not known to read,
has written.

Sources: PostgreSQL, "Explicit Locking" and "The Cumulative Statistics System"; SQLite,
`sqlite3_total_changes()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .._driver.driver_connection import in_transaction
from .._driver.sqlite_connection import CLOSED_SQLITE

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["LOCKS_TO_WRITE", "REPORTS_WRITES", "WRITTEN", "changes_of", "has_written"]

REPORTS_WRITES = ("postgresql", "sqlite")
"""The dialects of the databases that keep it."""

LOCKS_TO_WRITE = """
EXISTS (SELECT 1 FROM pg_locks
  WHERE pid = pg_backend_pid() AND granted AND locktype IN ('relation', 'object')
  AND mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock',
    'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
"""
"""An expression of PostgreSQL: whether the transaction has locks of writers."""
WRITTEN = f"""
({LOCKS_TO_WRITE}
OR txid_current_if_assigned() IS NOT NULL AND EXISTS (SELECT 1 FROM pg_class
  WHERE relnamespace = CAST('pg_catalog' AS regnamespace) AND relkind = 'r'
  AND pg_stat_get_xact_tuples_inserted(oid) + pg_stat_get_xact_tuples_updated(oid)
    + pg_stat_get_xact_tuples_deleted(oid) > 0))
"""
"""An expression of PostgreSQL: whether the open transaction has written."""


class _Known(Protocol):
    """What is known of a transaction without I/O."""

    read_only: bool
    client_side_read_only: bool
    only_reads: bool

    @property
    def may_have_written(self) -> bool: ...

    @property
    def was_bypassed(self) -> bool: ...


def has_written(connection: Connection, state: _Known) -> bool:
    """Whether the open transaction of *connection* has written anything.

    One round trip on PostgreSQL, unless that is known already; `True` if that fails.
    """
    if state.may_have_written:
        return True
    if state.read_only or state.client_side_read_only:  # the database has refused
        return False
    dialect = connection.dialect
    if dialect.name != "postgresql":
        only_reads = state.only_reads and not state.was_bypassed
        return dialect.name not in REPORTS_WRITES and not only_reads
    if not in_transaction(connection.connection.driver_connection):
        return True  # what was sent through the driver has been committed at once
    cursor = connection.connection.cursor()
    try:
        cursor.execute(f"SELECT {WRITTEN}")
        return bool(cursor.fetchall()[0][0])
    except dialect.loaded_dbapi.Error:
        return True
    finally:
        cursor.close()


def changes_of(driver_connection: Any) -> int:
    """How many rows SQLite has changed on a connection so far; 0 elsewhere. No I/O."""
    try:
        return int(getattr(driver_connection, "total_changes", 0))
    except (*CLOSED_SQLITE, TypeError):
        return 0
