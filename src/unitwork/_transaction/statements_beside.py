"""What other tasks and threads execute while a transaction of SQLite is ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .connection_state import INFO_KEY, ConnectionState
from .loan import Loan

__all__ = ["wait_for_statements"]

_PAUSE = 0.001  # seconds


def wait_for_statements(dbapi_connection: Any, loan: Loan) -> bool:
    """Wait for those of other tasks and threads; `False` if the connection is closed.

    SQLite would commit them at once, if they were executed after the end. Once the time
    is over they are interrupted. aiosqlite may have one that is yet to be executed: its
    connection is closed, which rolls back. No connection of sqlite3 is closed while
    another thread uses it, which would crash.
    """
    if _wait_until_over(loan):
        return True
    state: ConnectionState = dbapi_connection.info[INFO_KEY]
    state.abort()
    if not in_greenlet():
        _wait_until_over(loan)
        return True
    dbapi_connection.invalidate()
    return False


def _wait_until_over(loan: Loan) -> bool:
    """Wait for the end of all statements, no longer than its time limit."""
    until = time.monotonic() + loan.end_timeout
    while loan.statements_in_flight and time.monotonic() < until:
        if in_greenlet():
            await_only(asyncio.sleep(_PAUSE))
        else:
            time.sleep(_PAUSE)
    return not loan.statements_in_flight
