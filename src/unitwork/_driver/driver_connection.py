"""Reads the transaction status of a driver's connection, and aborts connections.

No driver is imported: each is recognized by the attributes of its connections. Their
private attributes are used here only.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sqlite3
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from .mysql_status import IN_TRANSACTION, last_status
from .sqlite_connection import CLOSED_SQLITE, Interruption, sqlite3_connection

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = [
    "COUNTER",
    "MessageCounter",
    "abort",
    "has_input",
    "in_error",
    "in_transaction",
    "is_aborted",
    "is_active",
    "is_closed",
    "is_cursor_open",
    "left_in_transaction",
    "message_counter",
    "reports_idle",
    "sent_so_far",
    "terminate_function",
    "transaction_probe",
    "transport_of",
]

COUNTER = "unitwork_messages"
"""The attribute of a driver's connection with the `MessageCounter` of `watch()`."""
_IDLE, _ACTIVE, _INERROR = 0, 1, 3  # libpq, PGTransactionStatusType


def in_transaction(driver_connection: Any) -> bool:
    """Whether the connection is inside a transaction, as its driver knows; no I/O."""
    protocol: Any = getattr(driver_connection, "_protocol", None)
    if protocol is not None:  # asyncpg, of which this is `is_in_transaction()`
        begun: bool = protocol.is_connected() and protocol.is_in_transaction()
        return begun
    if driver_connection is None or hasattr(driver_connection, "is_in_transaction"):
        return False  # one of asyncpg's that was terminated
    if (status := _libpq_status(driver_connection)) is not None:
        return status != _IDLE
    if hasattr(driver_connection, "server_status"):  # pymysql, asyncmy, aiomysql
        return bool(last_status(driver_connection) & IN_TRANSACTION)
    try:  # sqlite3, aiosqlite
        return bool(getattr(driver_connection, "in_transaction", False))
    except CLOSED_SQLITE:
        return False


def transaction_probe(driver_connection: Any) -> Callable[[], object]:
    """What returns something true wherever `in_transaction()` would be.

    It is called several times for each transaction, so for asyncpg and psycopg it is
    nothing but what the driver has. For a connection of asyncpg's that was lost inside
    a transaction, where `in_transaction()` is false, it returns something true.
    """
    protocol: Any = getattr(driver_connection, "_protocol", None)
    if type(protocol).__module__.startswith("asyncpg."):
        found: Callable[[], object] = protocol.is_in_transaction
        return found
    libpq = getattr(driver_connection, "pgconn", None)
    if type(libpq).__module__.startswith("psycopg"):
        return partial(attrgetter("transaction_status"), libpq)  # 0 is `_IDLE`
    return partial(in_transaction, driver_connection)


def left_in_transaction(driver_connection: Any) -> bool:
    """Whether a connection that is not in use is inside a transaction all the same.

    With `autocommit=False` sqlite3 always is: it begins the next one at once.
    """
    if not in_transaction(driver_connection):
        return False
    sqlite = sqlite3_connection(driver_connection)
    if not isinstance(sqlite, sqlite3.Connection):
        return True
    return getattr(sqlite, "autocommit", None) is not False


def reports_idle(driver_connection: Any) -> bool:
    """Whether the connection is open, and not inside a transaction; no I/O."""
    if in_transaction(driver_connection):
        return False
    is_closed = getattr(driver_connection, "is_closed", None)  # asyncpg
    if is_closed is not None:
        return not is_closed()
    try:  # sqlite3, aiosqlite
        getattr(driver_connection, "in_transaction", None)
    except CLOSED_SQLITE:
        return False
    return driver_connection is not None


def is_closed(driver_connection: Any) -> bool:
    """Whether the connection is closed, as its driver knows; no I/O."""
    closed = getattr(driver_connection, "is_closed", None)  # asyncpg
    if closed is not None:
        return bool(closed())
    closed = getattr(driver_connection, "closed", None)  # psycopg
    if closed is not None:
        return bool(closed)
    return getattr(driver_connection, "open", True) is False  # pymysql


def in_error(driver_connection: Any) -> bool:
    """Whether the driver knows that PostgreSQL has aborted the transaction; no I/O."""
    return _libpq_status(driver_connection) == _INERROR


def is_active(driver_connection: Any) -> bool:
    """Whether psycopg waits for the answer to a statement; no I/O."""
    return _libpq_status(driver_connection) == _ACTIVE


def has_input(driver_connection: Any) -> bool:
    """Whether the server has sent something, or hung up, while nothing was expected.

    No I/O; `False` where the driver has no socket.
    """
    transport = transport_of(driver_connection)
    if transport is not None:
        if transport.is_closing():
            return True
        sock = transport.get_extra_info("socket")
    else:
        sock = getattr(driver_connection, "_sock", None)  # pymysql
    if sock is None:
        sock = getattr(driver_connection, "pgconn", None)  # psycopg
        descriptor = getattr(sock, "socket", None)
    else:
        descriptor = sock.fileno()
    if not isinstance(descriptor, int) or descriptor < 0:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def is_aborted(connection: Connection) -> bool:
    """Whether the server would answer COMMIT with ROLLBACK.

    PostgreSQL aborts a transaction when a statement fails, and COMMIT then reports no
    error. If the driver does not know the status, this costs a round trip, so call it
    after an error only.
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


def _libpq_status(driver_connection: Any) -> int | None:
    """The transaction status of libpq; `None` if the driver does not use it."""
    libpq = getattr(driver_connection, "pgconn", None)  # psycopg
    if libpq is None:
        libpq = getattr(driver_connection, "info", None)  # psycopg2
    status: int | None = getattr(libpq, "transaction_status", None)
    return status


class MessageCounter:
    """Counts the messages that a connection has sent; asyncpg's protocol is one."""

    __slots__ = ("queries_count",)

    def __init__(self) -> None:
        self.queries_count = 0


def message_counter(driver_connection: Any) -> MessageCounter:
    """What counts the messages of a connection, if `watch()` or its driver does."""
    protocol: Any = getattr(driver_connection, "_protocol", None)
    if hasattr(protocol, "queries_count"):  # asyncpg
        return protocol  # type: ignore[no-any-return]  # it has the same attribute
    counter: MessageCounter | None = getattr(driver_connection, COUNTER, None)
    return _COUNTS_NOTHING if counter is None else counter


_COUNTS_NOTHING = MessageCounter()


def sent_so_far(driver_connection: Any) -> int:
    """A number that changes if the connection has written, also past SQLAlchemy.

    SQLite counts changed rows, others their messages. No I/O.
    """
    changes: int | None = getattr(driver_connection, "total_changes", None)
    if changes is not None:
        return changes
    return message_counter(driver_connection).queries_count


def is_cursor_open(cursor: Any) -> bool:
    """Whether a driver's cursor may have more rows; `True` if that is not known."""
    if cursor is None:
        return False
    driver_cursor = getattr(cursor, "_cursor", cursor)  # SQLAlchemy's async adapters
    if driver_cursor is None:
        return False
    if getattr(driver_cursor, "connection", cursor) is None:  # pymysql
        return False
    return not getattr(driver_cursor, "closed", False)


def abort(driver_connection: Any, is_over: Callable[[], bool] = lambda: True) -> None:
    """Abort what another task or thread is doing with a connection; no I/O.

    The connection is of no use afterwards. SQLite is interrupted once, and again until
    *is_over*.
    """
    terminate = terminate_function(driver_connection)
    if terminate is not None:
        terminate()
        return
    if hasattr(driver_connection, "interrupt"):  # sqlite3, aiosqlite
        Interruption(driver_connection, is_over).expired()
        return
    has_socket = getattr(driver_connection, "_sock", driver_connection)  # pymysql
    if not hasattr(has_socket, "fileno"):  # psycopg has it itself
        return
    with (
        contextlib.suppress(Exception),  # closed already: each driver raises another
        socket.socket(fileno=os.dup(has_socket.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


def terminate_function(driver_connection: Any) -> Callable[[], object] | None:
    """What terminates a connection that only its own event loop may terminate."""
    terminate: Callable[[], object] | None
    terminate = getattr(driver_connection, "terminate", None)  # asyncpg
    if terminate is None:  # asyncmy, aiomysql
        terminate = getattr(transport_of(driver_connection), "abort", None)
    return terminate


def transport_of(driver_connection: Any) -> Any:
    """The asyncio transport of a connection; `None` if it has none."""
    writer = getattr(driver_connection, "_writer", None)  # aiomysql; asyncmy had one
    return getattr(driver_connection if writer is None else writer, "_transport", None)
