"""Closes connections of aiosqlite, also while their thread executes a statement.

SQLAlchemy closes a connection whose statement was cancelled, and waits: until the
statement has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .._driver.sqlite_connection import (
    close_aiosqlite,
    interrupt_aiosqlite,
    start_aiosqlite_call,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["limit_close", "prepare_close"]

_LIMIT = "unitwork_close_limit"
"""The attribute of a driver's connection with the seconds that its close may take."""
_DEFAULT_LIMIT = 5.0


def prepare_close(
    driver_connection: Any, limit: float | None, *, is_kept: bool = False
) -> None:
    """Let a connection end its statement and roll back, before it is closed.

    SQLite keeps the locks of a closed connection as long as one of its cursors exists,
    say in the traceback of a cancellation, until that is garbage-collected. *limit*:
    the seconds that the close may take. One that *is_kept* is used again.
    """
    with contextlib.suppress(RuntimeError):  # no event loop
        asyncio.get_running_loop()
        if limit is not None:
            setattr(driver_connection, _LIMIT, limit)
        interrupt_aiosqlite(driver_connection)
        # Or an earlier interrupt, still pending, stops what follows.
        start_aiosqlite_call(driver_connection.execute("SELECT 0 WHERE 0"))
        if not is_kept:  # a statement of another task, yet to begin, is not committed
            start_aiosqlite_call(driver_connection.execute("PRAGMA query_only = 1"))


def limit_close(dialect: Dialect) -> None:
    """Limit the time for which *dialect* waits when it closes a broken connection.

    A lock, or a function of the application, can't be interrupted. The thread of the
    connection then closes it once it gets to that.
    """

    def do_terminate(dbapi_connection: Any) -> None:
        if not in_greenlet():  # it is garbage-collected
            dbapi_connection.terminate()
            return
        driver = dbapi_connection.driver_connection
        await_only(close_aiosqlite(driver, getattr(driver, _LIMIT, _DEFAULT_LIMIT)))

    setattr(dialect, "do_terminate", do_terminate)  # noqa: B010  # of this object alone
