"""The two-phase statements of each engine.

Sources: PostgreSQL, "PREPARE TRANSACTION" and `pg_prepared_xacts`; MariaDB, "XA
Transactions". What MariaDB 10.11 does beyond its manual was tried: a prepared branch
belongs to the connection that has prepared it until that ends, and for all others is
"unknown" (1397), although XA RECOVER lists it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from .._classify.driver_errors import read
from .._engine.commit_status import TransactionStatus
from .._engine.connection_state import loan_of
from .._engine.per_pool import PerPool
from ..errors import UsageError

__all__ = ["NoSuchPreparedTransaction", "TwoPhaseDialect", "dialect_for"]


class NoSuchPreparedTransaction(Exception):
    """The server reports no prepared transaction of this name."""


class TwoPhaseDialect(Protocol):
    """The two-phase statements of one dialect; each method gets an open connection."""

    names_at_begin: bool
    """Whether the transaction must have its name before its first statement."""

    def open(self, connection: Connection) -> None:
        """Make a new connection ready to end what another one has prepared."""

    def begin(self, connection: Connection, name: str) -> None: ...

    def mark(self, connection: Connection) -> Any:
        """What identifies this transaction later; `None` if it has nothing to store."""

    def prepare(self, connection: Connection, name: str) -> None:
        """Raise `UsageError` if the server is not set up for that."""

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        """End it, on the connection that has prepared it or on any other.

        Raises `NoSuchPreparedTransaction` if the server does not know it (any more).
        """

    def find_outcome(
        self, connection: Connection, name: str, mark: Any, *, requested: bool
    ) -> bool | None:
        """Whether one that the server does not know was committed; `None`: ask again.

        Terminates the backend that may still process it. Where the server keeps no
        record, it is what was *requested*.
        """

    def prepared(self, connection: Connection) -> Iterator[str]:
        """The names of all that are prepared in this database."""
        ...


class _PostgreSQL:
    names_at_begin = False

    def open(self, connection: Connection) -> None:
        pass

    def begin(self, connection: Connection, name: str) -> None:
        raise NotImplementedError

    def mark(self, connection: Connection) -> object | None:
        return _STATUS.before_commit(connection)

    def prepare(self, connection: Connection, name: str) -> None:
        _end_in_two_phases(connection)
        try:
            connection.exec_driver_sql(f"{_PREPARE} '{name}'")
        except DBAPIError as error:
            if _code(error) == "55000":
                raise UsageError(
                    "this PostgreSQL server does not prepare transactions, which "
                    f"twophase=True needs: {error.orig}. Set max_prepared_transactions "
                    "to at least max_connections, and restart the server"
                ) from error
            raise

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        verb = "COMMIT" if commit else "ROLLBACK"
        try:
            with _outside_transactions(connection) as cursor:
                cursor.execute(f"{verb} PREPARED '{name}'")
        except connection.dialect.loaded_dbapi.Error as error:
            if _code(error) == "42704":
                raise NoSuchPreparedTransaction(name) from error
            raise

    def find_outcome(
        self, connection: Connection, name: str, mark: Any, *, requested: bool
    ) -> bool | None:
        if name in self.prepared(connection):
            return None
        committed = _STATUS.committed(connection, mark)
        if committed is None:  # PREPARE may wait for a lock, and must not succeed later
            connection.execute(text(_TERMINATE), {"sql": f"{_PREPARE} '{name}'"})
        return committed

    def prepared(self, connection: Connection) -> Iterator[str]:
        return iter(connection.scalars(text(_PREPARED)).all())


_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
_PREPARE = "PREPARE TRANSACTION"
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE state = 'active' AND pid <> pg_backend_pid()
AND position(CAST(:sql AS text) IN query) > 0
"""
_STATUS = TransactionStatus()


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


class _MariaDB:
    names_at_begin = True

    def open(self, connection: Connection) -> None:
        _send(connection, "SET autocommit = 1")  # else it is "outside" (1400)

    def begin(self, connection: Connection, name: str) -> None:
        if not getattr(connection.dialect, "is_mariadb", False):
            raise UsageError(
                "twophase=True is for PostgreSQL and MariaDB, and this server is MySQL"
            )
        connection.exec_driver_sql(f"XA START '{name}'")
        _name(connection, name)

    def mark(self, connection: Connection) -> _Mark | None:
        if not _name(connection):
            return None
        return _Mark(_driver(connection).thread_id(), _server(connection))

    def prepare(self, connection: Connection, name: str) -> None:
        _end_in_two_phases(connection)
        connection.exec_driver_sql(f"XA END '{name}'")
        connection.exec_driver_sql(f"XA PREPARE '{name}'")
        _name(connection, "")

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        try:
            _send(connection, f"XA {'COMMIT' if commit else 'ROLLBACK'} '{name}'")
        except connection.dialect.loaded_dbapi.Error as error:
            if _code(error) in (_UNKNOWN_XID, _NOTHING_STORED):
                raise NoSuchPreparedTransaction(name) from error
            raise

    def find_outcome(
        self, connection: Connection, name: str, mark: _Mark, *, requested: bool
    ) -> bool | None:
        if mark.server != _server(connection):
            return None  # after a failover: it may never have been prepared here
        owner = connection.execute(text(_OWNER), {"thread": mark.thread}).scalar()
        if owner is not None:
            with suppress(DBAPIError):  # it has ended meanwhile
                connection.exec_driver_sql(f"KILL {mark.thread}")
            return None
        return None if name in self.prepared(connection) else requested

    def prepared(self, connection: Connection) -> Iterator[str]:
        for row in connection.exec_driver_sql("XA RECOVER").all():
            _, length, rest, data = row
            if not rest:
                name = data if isinstance(data, bytes) else str(data).encode()
                yield name[:length].decode("utf-8", "replace")


class _Mark(NamedTuple):
    """The thread of a connection, and the server that it is on."""

    thread: int
    server: tuple[object, ...]


def _server(connection: Connection) -> tuple[object, ...]:
    """What identifies the server; fixed for a connection."""
    known: tuple[object, ...] | None = connection.info.get(_SERVER)
    if known is None:
        cursor = connection.connection.cursor()
        cursor.execute(_SERVER)
        known = connection.info[_SERVER] = tuple(cursor.fetchone() or ())
        cursor.close()
    return known


_SERVER = "SELECT @@hostname, @@port, @@server_id"
_UNKNOWN_XID = 1397
_NOTHING_STORED = 1402  # "branch was rolled back": it has changed no row
_OWNER = """
SELECT id FROM information_schema.processlist
WHERE id = :thread AND db = DATABASE()
AND user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
"""

_DIALECTS: dict[str, TwoPhaseDialect] = {
    "postgresql": _PostgreSQL(),
    "mysql": _MariaDB(),
    "mariadb": _MariaDB(),
}


def dialect_for(name: str, engine: Engine) -> TwoPhaseDialect:
    """The statements for database *name*; `UsageError` if its engine has none."""
    dialect = _DIALECTS.get(engine.dialect.name)
    if dialect is None:
        raise UsageError(
            f"database {name!r} can't take part in a two-phase commit: "
            f"{engine.dialect.name} has none. Leave twophase=True out, or give "
            "PostgreSQL and MariaDB databases only"
        )
    if dialect.names_at_begin:
        _listening.of(engine)
    return dialect


def _listen(engine: Engine) -> bool:
    """End the XA transactions of *engine* as SQLAlchemy ends those that it knows."""

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if name := _name(connection):
            _end_in_two_phases(connection)
            connection.exec_driver_sql(f"XA END '{name}'")
            connection.exec_driver_sql(f"XA COMMIT '{name}' ONE PHASE")
            _name(connection, "")

    @event.listens_for(engine, "rollback")
    def rollback(connection: Connection) -> None:
        if name := _name(connection):
            _name(connection, "")
            error = connection.dialect.loaded_dbapi.Error
            with suppress(error):  # it may have ended, after a deadlock
                _send(connection, f"XA END '{name}'")
            with suppress(NoSuchPreparedTransaction):
                _DIALECTS["mysql"].end(connection, name, commit=False)

    return True


_listening = PerPool(_listen)


def _name(connection: Connection, new: str | None = None) -> str:
    """The name of the XA transaction that is open; or give it a *new* one, or none."""
    loan = loan_of(connection)
    if loan is None:
        return ""
    if new is not None:
        loan.xid = new
    return loan.xid


def _end_in_two_phases(connection: Connection) -> None:
    """No COMMIT follows, and time limits (SET STATEMENT … FOR) are for statements."""
    if (loan := loan_of(connection)) is not None:
        loan.statement_prefix = ""
        loan.in_two_phases = True


def _send(connection: Connection, sql: str) -> None:
    cursor = connection.connection.cursor()
    cursor.execute(sql)
    cursor.close()


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _code(error: BaseException) -> str | int | None:
    found = read(getattr(error, "orig", None) or error)
    return found.code if found is not None else None
