"""The number that a server knows a connection by, as its driver has kept it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

__all__ = ["backend_id"]


def backend_id(driver_connection: Any) -> int | None:
    """The process id of PostgreSQL, or the thread id of MariaDB; no I/O.

    `None` if there is none, as with SQLite, and once the connection is closed. Behind
    a pooler such as PgBouncer it is the pooler's number, which the server doesn't know.
    """
    with suppress(Exception):  # closed: each driver raises another
        found = _ask(driver_connection)
        return found if isinstance(found, int) and found > 0 else None
    return None


def _ask(driver_connection: Any) -> object:
    for name in ("get_server_pid", "thread_id"):  # asyncpg; pymysql, asyncmy
        method = getattr(driver_connection, name, None)
        if method is not None:
            return method()
    info = getattr(driver_connection, "info", None)  # psycopg, psycopg2
    return getattr(info, "backend_pid", None)
