"""The two-phase statements of MariaDB.

Source: "XA Transactions" in its manual. What MariaDB 10.11 does beyond that was tried:
a prepared branch belongs to the connection that has prepared it until that ends, and
for all others is "unknown" (1397), although XA RECOVER lists it. While that connection
ends there is a moment, after it has left the process list, in which the server takes
an XA COMMIT of another one, acknowledges it and loses the work (seen in 24 of 68,000):
so a branch is ended elsewhere only some time after its connection has gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from .._engine.per_pool import PerPool
from .._transaction.commit_status import fetch_row
from .._transaction.connection_state import loan_of
from ..errors import UsageError
from .statements import (
    NoSuchPreparedTransaction,
    code_of,
    commit_report_of,
    end_in_two_phases,
    execute,
)

__all__ = ["MariaDB", "Mark", "listen"]

_MARK = """
SELECT CONNECTION_ID(), UNIX_TIMESTAMP() - variable_value, @@hostname, @@port,
@@server_id FROM information_schema.global_status WHERE variable_name = 'UPTIME'
"""
_UNKNOWN_XID = 1397
_NOTHING_STORED = 1402  # "branch was rolled back": it has changed no row
_UNDER_WAY = """
SELECT info FROM information_schema.processlist
WHERE id <> CONNECTION_ID() AND INSTR(info, :name)
"""
_OWNER = "SELECT id FROM information_schema.processlist WHERE id = :thread"


class MariaDB:
    names_at_begin = True
    detached_after = 0.25

    def open(self, connection: Connection) -> None:
        _send(connection, "SET autocommit = 1")  # else it is "outside" (1400)

    def begin(self, connection: Connection, name: str) -> None:
        if not getattr(connection.dialect, "is_mariadb", False):
            raise UsageError(
                "twophase=True is for PostgreSQL and MariaDB, and this server is MySQL"
            )
        execute(connection, f"XA START '{name}'")
        _name(connection, name)

    def mark(self, connection: Connection) -> Mark | None:
        return _mark(connection) if _name(connection) else None

    def prepare(self, connection: Connection, name: str) -> None:
        end_in_two_phases(connection)
        execute(connection, f"XA END '{name}'")
        execute(connection, f"XA PREPARE '{name}'")
        _name(connection, "")

    def is_detached(self, connection: Connection, mark: Mark) -> bool:
        here = _mark(connection)
        if (mark.server, mark.started) != (here.server, here.started):
            return True  # its thread id may be that of another connection here
        owner = connection.execute(text(_OWNER), {"thread": mark.thread}).scalar()
        if owner is not None:
            with suppress(DBAPIError):  # it has ended meanwhile
                connection.exec_driver_sql(f"KILL {mark.thread}")
        return owner is None

    def end(self, connection: Connection, name: str, *, commit: bool) -> None:
        try:
            _send(connection, f"XA {'COMMIT' if commit else 'ROLLBACK'} '{name}'")
        except connection.dialect.loaded_dbapi.Error as error:
            if code_of(error) in (_UNKNOWN_XID, _NOTHING_STORED):
                raise NoSuchPreparedTransaction(name) from error
            raise

    def find_outcome(
        self, connection: Connection, name: str, mark: Mark, *, requested: bool
    ) -> bool | None:
        if mark.server != _mark(connection).server:
            return None  # after a failover: it may never have been prepared here
        return None if name in self.prepared(connection) else requested

    def statements_under_way(self, connection: Connection, name: str) -> Iterator[str]:
        return iter(connection.scalars(text(_UNDER_WAY), {"name": name}).all())

    def prepared(self, connection: Connection) -> Iterator[str]:
        for row in connection.exec_driver_sql("XA RECOVER").all():
            _, length, rest, data = row
            if not rest:
                name = data if isinstance(data, bytes) else str(data).encode()
                yield name[:length].decode("utf-8", "replace")


class Mark(NamedTuple):
    """A connection: its thread, and the server, which numbers them from its start."""

    thread: int
    started: float
    server: tuple[object, ...]


def _mark(connection: Connection) -> Mark:
    """Query what identifies *connection*; once for each of the pool."""
    known: Mark | None = connection.info.get(_MARK)
    if known is None:
        thread, started, *server = fetch_row(connection, _MARK)
        known = connection.info[_MARK] = Mark(thread, started, tuple(server))
    return known


def _listen(engine: Engine) -> bool:
    """End the XA transactions of *engine* as SQLAlchemy ends those that it knows."""

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if name := _name(connection):
            end_in_two_phases(connection)
            report = commit_report_of(connection)
            with report.message():
                execute(connection, f"XA END '{name}'")
                execute(connection, f"XA COMMIT '{name}' ONE PHASE")
            report.answered()
            _name(connection, "")

    @event.listens_for(engine, "rollback")
    def rollback(connection: Connection) -> None:
        if name := _name(connection):
            end_in_two_phases(connection)
            _name(connection, "")
            error = connection.dialect.loaded_dbapi.Error
            with suppress(error):  # it may have ended, after a deadlock
                _send(connection, f"XA END '{name}'")
            with suppress(NoSuchPreparedTransaction):
                MariaDB().end(connection, name, commit=False)

    return True


_listening = PerPool(_listen)


def listen(engine: Engine) -> None:
    """Listen to the ends of the transactions of *engine*, once for its pool."""
    _listening.of(engine)


def _name(connection: Connection, new: str | None = None) -> str:
    """The name of the XA transaction that is open; or give it a *new* one, or none."""
    loan = loan_of(connection)
    if loan is None:
        return ""
    if new is not None:
        loan.xid = new
    return loan.xid


def _send(connection: Connection, sql: str) -> None:
    cursor = connection.connection.cursor()
    cursor.execute(sql)
    cursor.close()
