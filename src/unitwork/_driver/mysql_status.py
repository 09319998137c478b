"""Reads what MySQL and MariaDB have answered last, as their drivers know it.

Each answer has the status of the connection: whether a transaction is open, and whether
the autocommit mode is on. The private attributes of pymysql, asyncmy and aiomysql that
keep it are used here only.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = [
    "IN_TRANSACTION",
    "WARNINGS",
    "commits_each",
    "has_more_results",
    "last_command_failed",
    "last_status",
    "last_warnings",
    "refresh_status",
]

IN_TRANSACTION, _AUTOCOMMIT = 0x0001, 0x0002  # flags of the protocol
WARNINGS = "unitwork_warnings"
"""The attribute of a driver's connection with the number of warnings of `watch()`."""
_UNKNOWN = object()


def commits_each(driver_connection: Any) -> bool:
    """Whether the autocommit mode is on; `False` for other databases. No I/O."""
    return bool(last_status(driver_connection) & _AUTOCOMMIT)


def last_status(driver_connection: Any) -> int:
    """The flags of the last answer; 0 for other databases. No I/O.

    asyncmy overlooks a status that is 0, so its result is read, too. That has none as
    long as rows are streamed.
    """
    status: int = getattr(driver_connection, "server_status", None) or 0
    result = getattr(driver_connection, "_result", None)
    if getattr(result, "unbuffered_active", False):
        return status
    last: int | None = getattr(result, "server_status", None)
    return status if last is None else status & last


def last_command_failed(driver_connection: Any) -> bool:
    """Whether the last command of a MySQL driver has failed; no I/O."""
    return getattr(driver_connection, "_result", _UNKNOWN) is None


def last_warnings(driver_connection: Any) -> int:
    """How many warnings the last answer without rows has announced; no I/O.

    That to ROLLBACK has one if it could not undo everything.
    """
    count: int = getattr(driver_connection, WARNINGS, 0)
    return count


def has_more_results(driver_connection: Any) -> bool:
    """Whether a MySQL driver has results of the last command to read; no I/O."""
    result = getattr(driver_connection, "_result", None)
    unread = getattr(result, "has_next", False) or getattr(
        result, "unbuffered_active", False
    )
    return bool(unread)


def refresh_status(dialect: Dialect, pooled: Any) -> None:
    """Ping MySQL if its driver has lost the status of the last statement.

    The driver does where that has failed, pymysql where it has returned rows, and
    asyncmy where it had a warning. *pooled* is the connection of the pool. One that is
    lost stays as it is.
    """
    driver = pooled.driver_connection
    result = getattr(driver, "_result", _UNKNOWN)
    if result is _UNKNOWN or has_more_results(driver):
        return
    if getattr(result, "server_status", None) is None:
        with contextlib.suppress(dialect.loaded_dbapi.Error):
            dialect.do_ping(pooled.dbapi_connection)
