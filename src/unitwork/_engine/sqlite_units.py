"""SQLite: what units of work get, and other users of their engine do not.

A pooled connection serves units or others. What has to be set on the connection itself
is set when that changes, so that one unit after the other costs nothing.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from sqlalchemy import event

from .._driver.driver_connection import in_transaction
from .._driver.sqlalchemy_internals import is_autocommit
from .._driver.sqlite_connection import call_sqlite3, sqlite3_connection
from ..errors import UsageError
from . import sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect

__all__ = ["BEGIN", "check_transactional", "has_defaults", "listen"]

BEGIN = "unitwork_begin"
"""The execution option of a unit's engine: the statement that begins."""
_BEFORE = "unitwork.sqlite"
"""In the `info` of a connection that serves units: how others had it."""

_with_defaults: WeakSet[Dialect] = WeakSet()


def has_defaults(dialect: Dialect) -> bool:
    """Whether units of this *dialect*'s pool get the defaults of unitwork."""
    return dialect in _with_defaults


def listen(engine: Engine, *, wal: bool) -> None:
    """Give the units of *engine* enforced foreign keys, and a BEGIN that locks.

    A transaction that reads first and writes later fails if another one has written in
    between: it does not get the lock, and does not wait for the busy timeout. With
    *wal* the file gets a write-ahead log, which is a property of the file.
    """
    _with_defaults.add(engine.dialect)
    event.listen(engine, "engine_connect", _prepare)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "savepoint", _begin_before_savepoint)
    if not wal:
        return

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, record: object) -> None:
        try:
            call_sqlite3(dbapi_connection, _set_write_ahead_log)
        except Exception:  # not a database, or locked
            dbapi_connection.close()  # or aiosqlite's thread would go on
            raise


def _prepare(connection: Connection) -> None:
    """Let *connection* serve a unit, or others; before BEGIN, which is too late."""
    before: _Settings | None = connection.info.get(_BEFORE)
    serves_unit = BEGIN in connection.get_execution_options()
    if serves_unit is (before is not None):
        return
    dbapi_connection = connection.connection.dbapi_connection
    # SQLAlchemy has set its isolation level already, and resets it to "" later.
    is_set = is_autocommit(connection)
    with sqlite.released_on_failure(connection):
        if before is None:
            found = call_sqlite3(dbapi_connection, _serve_units)
            connection.info[_BEFORE] = found.reset() if is_set else found
        else:
            settings = before.in_autocommit() if is_set else before
            call_sqlite3(dbapi_connection, settings.restore)
            del connection.info[_BEFORE]


def _begin(connection: Connection) -> None:
    statement = connection.get_execution_options().get(BEGIN)
    if statement and not is_autocommit(connection):
        connection.exec_driver_sql(statement)


def _begin_before_savepoint(connection: Connection, name: str | None) -> None:
    """Begin, or to release the savepoint would commit: the driver begins at a write.

    For a session of a test, which joins the transaction of a connection by savepoints.
    """
    driver_connection = connection.connection.driver_connection
    if not is_autocommit(connection) and not in_transaction(driver_connection):
        connection.exec_driver_sql("BEGIN")


class _Settings(NamedTuple):
    """What a connection of sqlite3 is set to."""

    isolation_level: str | None
    autocommit: bool | int | None
    """`None`: this Python has no such mode, which came with 3.12."""
    foreign_keys: int

    def reset(self) -> _Settings:
        return self._replace(isolation_level="")

    def in_autocommit(self) -> _Settings:
        return self._replace(isolation_level=None)

    def restore(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA foreign_keys = {self.foreign_keys}")
        connection.isolation_level = self.isolation_level  # type: ignore[assignment]  # one of its own
        if self.autocommit is not None:
            setattr(connection, "autocommit", self.autocommit)  # noqa: B010  # 3.12


def _serve_units(connection: sqlite3.Connection) -> _Settings:
    """Let the driver leave BEGIN to us; return what was set before."""
    before = _outside_transactions(connection)
    (foreign_keys,) = connection.execute("PRAGMA foreign_keys").fetchone()
    connection.execute("PRAGMA foreign_keys = ON")
    settings = _Settings(connection.isolation_level, before, foreign_keys)
    if before is not None:
        connection.autocommit = sqlite3.LEGACY_TRANSACTION_CONTROL  # type: ignore[attr-defined,unused-ignore]  # 3.12
    connection.isolation_level = None
    return settings


def _outside_transactions(connection: Any) -> bool | int | None:
    """Leave the transaction of `autocommit=False`, in which no pragma has an effect."""
    before: bool | int | None = getattr(connection, "autocommit", None)
    if before is False:
        connection.rollback()
        connection.autocommit = True
    return before


def _set_write_ahead_log(connection: Any) -> None:
    before = _outside_transactions(connection)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_READONLY:
            raise
    if before is False:
        connection.autocommit = False


def _autocommit_of(connection: Any) -> bool | int | None:
    """`None` before Python 3.12."""
    return getattr(connection, "autocommit", None)


def check_transactional(connection: Connection) -> None:
    """Raise `UsageError` if a unit's *connection* commits each statement at once."""
    if is_autocommit(connection):
        return
    driver = sqlite3_connection(connection.connection.driver_connection)
    dbapi_connection = connection.connection.dbapi_connection
    try:
        autocommit = _autocommit_of(driver)
    except sqlite3.ProgrammingError:  # in another thread than its own
        autocommit = call_sqlite3(dbapi_connection, _autocommit_of)
    if autocommit is True:
        raise UsageError(
            "the connections of this engine have autocommit=True: SQLite would store "
            "each statement at once, and could roll nothing back. Leave it out of "
            "connect_args"
        )
    if autocommit is False or driver.isolation_level is not None:
        return
    if not driver.in_transaction:
        raise UsageError(
            "the connections of this engine have isolation_level=None, and nothing "
            "sends BEGIN: SQLite would store each statement at once, and could roll "
            "nothing back. Leave it out of connect_args"
        )
