"""Connections of an async engine that is used by one event loop after another.

A private part of asyncio is used here only: what its transports call when they close.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from .._driver.driver_connection import terminate_function, transport_of

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["close_in_its_loop", "hang_up"]


def close_in_its_loop(
    loop: asyncio.AbstractEventLoop, record: ConnectionPoolEntry
) -> None:
    """Let *loop* close a connection of its own, if the current loop can't.

    SQLAlchemy would try, fail, and leave it open.
    """
    terminate = terminate_function(record.driver_connection)
    if terminate is None:  # aiosqlite, psycopg: any event loop can close them
        return
    with contextlib.suppress(RuntimeError):  # closed: see `hang_up`
        loop.call_soon_threadsafe(terminate)
        record.dbapi_connection = None  # type: ignore[misc]  # it is, in every record


def hang_up(driver_connection: Any) -> None:
    """End a connection of a closed event loop, so that `close()` finds it closed."""
    terminate = terminate_function(driver_connection)
    transport = transport_of(driver_connection)
    if terminate is None:
        return
    with contextlib.suppress(RuntimeError):  # the loop is closed
        terminate()
    # What the loop would have called next; uvloop has no such method, and has hung up.
    connection_lost = getattr(transport, "_call_connection_lost", None)
    if connection_lost is not None:
        connection_lost(None)
