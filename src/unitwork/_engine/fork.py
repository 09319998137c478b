"""An engine that was used before a fork: the child process opens its own connections.

Two processes must not use one connection, and the child must not close it either: that
would end the parent's as well. So the child lets go of it, and keeps it to the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DisconnectionError

from .._concurrency.fork import in_child
from .._driver.driver_connection import in_transaction
from .._driver.sqlalchemy_internals import take_connection
from ..errors import UsageError
from . import sqlite

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["check_not_inherited", "start_afresh"]

log = logging.getLogger("unitwork")

_inherited: list[object] = []
"""Kept, or the garbage collector would close them."""
_forked_at = 0.0


def start_afresh(engine: Engine, records: Iterable[ConnectionPoolEntry]) -> None:
    """Give *engine*, in the child of a fork, an empty pool.

    What still uses one of the *records* gets `UsageError`.
    """
    if _is_only_memory(engine):
        return
    _inherited.append(engine.pool)
    for record in records:
        _let_go(record, is_sqlite=engine.dialect.name == "sqlite")
    engine.dispose(close=False)


def check_not_inherited(record: Any, *, is_sqlite: bool) -> None:
    """Raise `DisconnectionError` for a connection opened before the last fork.

    For the pool of an engine that was not known then. No I/O.
    """
    if record.last_connect_time < _forked_at:
        _let_go(record, is_sqlite=is_sqlite)
        raise DisconnectionError("the pooled connection is the parent process's")


def _let_go(record: ConnectionPoolEntry, *, is_sqlite: bool) -> None:
    driver_connection: Any = record.driver_connection
    in_use = record.in_use
    connection = take_connection(record, _OfTheParent())
    if connection is None:
        return
    _inherited.append(connection)
    if not is_sqlite:
        return
    # SQLite's locks are the process's. With the file open twice it would take those of
    # the parent for its own, and lose what it writes when the parent closes the file.
    # Closing what is idle does nothing to the parent; to close what another thread is
    # using might wait for that thread, which does not exist here.
    if in_use or in_transaction(driver_connection):
        log.warning("a process has forked while it used a connection to SQLite")
        return
    sqlite.close_after_fork(driver_connection)


class _OfTheParent:
    """In place of a connection that was in use during the fork."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UsageError(
            "this process has forked inside a transaction, which belongs to the parent "
            "process: open a unit of work, or a connection, of its own in the child"
        )


def _is_only_memory(engine: Engine) -> bool:
    """Whether the database is a connection: a copy of it is the child's own."""
    is_sqlite = engine.dialect.name == "sqlite"
    return is_sqlite and not engine.dialect.is_async and sqlite.in_memory(engine.url)


def _note_time() -> None:
    global _forked_at
    _forked_at = time.time()


in_child(_note_time)
