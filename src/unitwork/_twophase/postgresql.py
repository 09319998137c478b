"""The two-phase statements of PostgreSQL.

Sources: "PREPARE TRANSACTION" and `pg_prepared_xacts` in its manual.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from .._transaction.commit_status import TransactionStatus
from ..errors import CommitUnknownError, UsageError
from .statements import NoSuchPreparedTransaction, code_of, end_in_two_phases, execute

__all__ = ["PostgreSQL"]

_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
_PREPARE = "PREPARE TRANSACTION"
_UNDER_WAY = """
SELECT query FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND state = 'active' AND strpos(query, :name) > 0
"""
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE state = 'active' AND pid <> pg_backend_pid()
AND position(CAST(:sql AS text) IN query) > 0
"""
_STATUS = TransactionStatus()


class PostgreSQL:
    names_at_begin = False
    detached_after = 0.0

    def open(self, connection: Connection) -> None:
        pass

    def begin(self, connection: Connection, name: str) -> None:
        raise NotImplementedError

    def mark(self, connection: Connection) -> object | None:
        return _STATUS.before_commit(connection)

    def prepare(self, connection: Connection, name: str) -> None:
        end_in_two_phases(connection)
        try:
            execute(connection, f"{_PREPARE} '{name}'")
        except DBAPIError as error:
            if code_of(error) == "55000":
                raise UsageError(
                    "this PostgreSQL server does not prepare transactions, which "
                    f"twophase=True needs: {error.orig}. Set max_prepared_transactions "
                    "to at least max_connections, and restart the server"
                ) from error
            raise

    def is_detached(self, connection: Connection, mark: Any) -> bool:
        return True  # by PREPARE itself

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        verb = "COMMIT" if commit else "ROLLBACK"
        try:
            with _outside_transactions(connection) as cursor:
                cursor.execute(f"{verb} PREPARED '{name}'")
        except connection.dialect.loaded_dbapi.Error as error:
            if code_of(error) == "42704":
                raise NoSuchPreparedTransaction(name) from error
            raise

    def find_outcome(
        self, connection: Connection, name: str, mark: Any, *, requested: bool
    ) -> bool | None:
        if name in self.prepared(connection):
            return None
        committed = None
        with suppress(CommitUnknownError):
            committed = _STATUS.committed(connection, mark)
        if committed is None:  # PREPARE may wait for a lock, and must not succeed later
            connection.execute(text(_TERMINATE), {"sql": f"{_PREPARE} '{name}'"})
        return committed

    def statements_under_way(self, connection: Connection, name: str) -> Iterator[str]:
        return iter(connection.scalars(text(_UNDER_WAY), {"name": name}).all())

    def prepared(self, connection: Connection) -> Iterator[str]:
        return iter(connection.scalars(text(_PREPARED)).all())


@contextmanager
def _outside_transactions(connection: Connection) -> Iterator[Any]:
    """A cursor that begins no transaction: PREPARE has ended the last one."""
    dbapi_connection: Any = connection.connection.dbapi_connection
    dbapi_connection.rollback()  # or asyncpg would still assume that it is in one
    dbapi_connection.autocommit = True
    try:
        cursor = dbapi_connection.cursor()
        yield cursor
        cursor.close()
    finally:
        # If the connection is broken, the first error is raised.
        with suppress(connection.dialect.loaded_dbapi.Error):
            dbapi_connection.autocommit = False
