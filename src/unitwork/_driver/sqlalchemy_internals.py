"""Private parts of SQLAlchemy that unitwork uses; one more is in `_session.fence`.

All of it is the same in SQLAlchemy 2.0 and 2.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import RootTransaction
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.orm import Session
from sqlalchemy.orm.session import (
    SessionTransactionState,
    _SessionCloseState,  # pyright: ignore[reportPrivateUsage]  # see above
)
from sqlalchemy.pool import NullPool, Pool, QueuePool
from sqlalchemy.pool.base import _ConnectionRecord  # pyright: ignore[reportPrivateUsage]  # see above
from sqlalchemy.util import greenlet_spawn

__all__ = [
    "EngineOver",
    "PoolEntry",
    "adopt_event_loop",
    "close_if_empty",
    "greenlets",
    "has_modified",
    "has_own_connections",
    "has_pending",
    "is_autocommit",
    "is_changing",
    "is_connecting",
    "is_ready_to_commit",
    "larger_pool",
    "locks_rows",
    "max_overflow",
    "prepare",
    "reconnect",
    "root_engine",
    "take_connection",
    "take_connections",
    "unpooled",
]


_ACTIVE = SessionTransactionState.ACTIVE
_NOT_CLOSED = _SessionCloseState.ACTIVE
_CLOSED = _SessionCloseState.CLOSED


class EngineOver(OptionEngine):
    """An engine with the events, options and caches of another, and its own pool."""

    pool: Any = None  # a property of the other's, in the base

    def __init__(self, engine: Engine, pool: Pool) -> None:
        super().__init__(engine, {})
        self.pool = pool


class PoolEntry(_ConnectionRecord):
    """One connection of a pool whose DBAPI connection is a proxy of ours."""

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]  # it is one there
        proxy: Any = self.dbapi_connection
        return None if proxy is None else proxy.driver


def is_autocommit(connection: Connection) -> bool:
    """Whether *connection* commits each statement: its driver is in AUTOCOMMIT mode."""
    autocommit: bool = connection._is_autocommit_isolation()  # pyright: ignore[reportPrivateUsage]  # see above
    return autocommit


def is_connecting(session: Session) -> bool:
    """Whether another task or thread makes *session* connect, or begin."""
    transaction: Any = session._transaction  # pyright: ignore[reportPrivateUsage]  # see above
    while transaction is not None:
        if transaction._state is SessionTransactionState.PROVISIONING_CONNECTION:
            return True
        transaction = transaction.parent
    return False


def is_changing(session: Session) -> bool:
    """Whether a method is at work that ends a transaction or savepoint of *session*.

    Or one that connects, or begins.
    """
    transaction: Any = session._transaction  # pyright: ignore[reportPrivateUsage]  # see above
    while transaction is not None:
        if transaction._current_fn is not None:
            return True
        transaction = transaction.parent
    return False


def is_ready_to_commit(
    session: Session,
    connection: Connection,
    roots: Sequence[tuple[Connection, RootTransaction | None]],
) -> bool:
    """Whether `session.commit()` would do nothing but end its only transaction.

    That is the one of *connection*, as it was begun: see *roots*. Nothing is to be
    flushed, not even by an override of `flush()`, and no savepoint is open.
    """
    transaction: Any = session._transaction  # pyright: ignore[reportPrivateUsage]  # see above
    return (
        transaction is not None
        and transaction._state is _ACTIVE
        and transaction._current_fn is None
        and transaction._parent is None
        and not transaction.nested
        and session._nested_transaction is None  # pyright: ignore[reportPrivateUsage]  # see above
        and not session.twophase
        and len(roots) == 1
        and connection.get_transaction() is roots[0][1]
        and not connection.invalidated
        and session._is_clean()  # pyright: ignore[reportPrivateUsage]  # see above
        and getattr(session, "flushes_plainly", False)
    )


def has_pending(session: Session) -> bool:
    """Whether *session* has anything to flush."""
    return not session._is_clean()  # pyright: ignore[reportPrivateUsage]  # see above


def close_if_empty(session: Any) -> bool:
    """Do what `close()` does to a *session* without a transaction and objects.

    Returns `False` if there are any, or if its class replaces that method.
    """
    if (
        session._transaction is not None
        or session.identity_map.keys()
        or session._new
        or session._deleted
        or not getattr(session, "closes_plainly", False)
    ):
        return False
    if session._close_state is _NOT_CLOSED:
        session._close_state = _CLOSED
    return True


def has_modified(session: Session) -> bool:
    """Whether *session* has changed objects to flush."""
    modified: bool = session.identity_map.check_modified()
    return modified


def locks_rows(select: Any) -> bool:
    """Whether a SELECT is to lock its rows, also where that is not rendered."""
    return getattr(select, "_for_update_arg", None) is not None


def max_overflow(pool: QueuePool) -> int:
    """How many connections *pool* may open above its size; negative: no limit."""
    overflow: int = pool._max_overflow  # pyright: ignore[reportPrivateUsage]  # see above
    return overflow


def root_engine(engine: Engine) -> Engine:
    """The engine from which *engine* was derived by `execution_options()`, or itself.

    What listens to it listens to all engines that are derived from it.
    """
    while isinstance(engine, OptionEngine):
        engine = engine._proxied  # pyright: ignore[reportPrivateUsage]  # see above
    return engine


def reconnect(connection: Connection) -> None:
    """Open a new connection in place of the driver's one under *connection*.

    As a pool does it at a checkout, but after the isolation level has been set. What
    listens to checkouts is called again: it may prepare the connection for its user.
    """
    fairy: Any = connection.connection
    record = fairy._connection_record
    at_checkin = list(record.finalize_callback)
    record.invalidate()
    fairy.dbapi_connection = record.get_connection()
    record.finalize_callback.extend(at_checkin)
    fairy._pool.dispatch.checkout(fairy.dbapi_connection, record, fairy)
    dialect: Any = connection.dialect
    options = connection.get_execution_options()
    for name, characteristic in dialect.connection_characteristics.items():
        if name in options:
            characteristic.set_connection_characteristic(
                dialect, connection, fairy.dbapi_connection, options[name]
            )


def prepare(session: Session) -> None:
    """Do what `Session.prepare()` does before it calls SQLAlchemy's transactions."""
    session._transaction._prepare_impl()  # type: ignore[union-attr]  # pyright: ignore  # it is open


def take_connections(session: Session) -> list[Connection]:
    """Take the connections out of the transaction of *session*, which goes on.

    Its next statement connects again. Its objects, and what is not flushed, stay as
    they are. Not those that the session was given: their owner keeps them.
    """
    transaction: Any = session._transaction  # pyright: ignore[reportPrivateUsage]  # see above
    entries = set(transaction._connections.values())
    transaction._connections.clear()
    return [connection for connection, _, _, is_ours in entries if is_ours]


def has_own_connections(session: Session) -> bool:
    """Whether *session* has made all the connections of its transaction itself."""
    transaction: Any = session._transaction  # pyright: ignore[reportPrivateUsage]  # see above
    return all(is_ours for _, _, _, is_ours in transaction._connections.values())


def adopt_event_loop(engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
    """Let tasks of *loop* wait for connections, though those of another loop have.

    The queue of SQLAlchemy's pool belongs to the event loop of the first task that had
    to wait for it. The connections in it stay: checkout discards those of other loops.
    """
    queue: Any = getattr(engine.pool, "_pool", None)
    old: Any = getattr(queue, "__dict__", {}).get("_queue")
    if getattr(old, "_loop", None) in (None, loop):
        return
    new = type(old)(old.maxsize)
    while not old.empty():
        new.put_nowait(old.get_nowait())
    queue._queue = new


def take_connection(record: Any, replacement: object) -> Any:
    """Take the driver's connection out of a pool's *record*, without closing it.

    What has checked it out gets the *replacement*, and closes nothing.
    """
    connection, record.dbapi_connection = record.dbapi_connection, None
    fairy = record.fairy_ref() if record.fairy_ref is not None else None
    if fairy is not None:
        fairy.dbapi_connection = replacement
    return connection


def larger_pool(pool: Pool, size: int) -> Pool:
    """A new pool like *pool*, that keeps *size* connections and opens any number."""
    if not isinstance(pool, QueuePool):
        return pool.recreate()
    recreated: Any = pool.recreate()
    return type(pool)(  # what `recreate()` does, but for the sizes
        recreated._creator,
        pool_size=size,
        max_overflow=-1,
        recycle=recreated._recycle,
        echo=recreated.echo,
        pre_ping=recreated._pre_ping,
        use_lifo=True,
        reset_on_return=recreated._reset_on_return,
        _dispatch=recreated.dispatch,
        dialect=recreated._dialect,
    )


def unpooled(engine: Engine) -> Engine:
    """An engine to the same server that has no pool, no events and no options."""
    creator: Any = engine.pool._creator  # pyright: ignore[reportPrivateUsage]  # see above
    pool = NullPool(creator, dialect=engine.dialect)
    return Engine(pool, engine.dialect, engine.url)


@cache
def greenlets() -> tuple[Callable[..., Any], Callable[[], Any]]:
    """The class of those in which SQLAlchemy awaits, and what gives the current one."""
    getcurrent = import_module("greenlet").getcurrent
    found: list[Any] = []
    making: Any = greenlet_spawn(lambda: found.append(type(getcurrent())))
    for _ in making.__await__():  # it awaits nothing
        pass
    return found[0], getcurrent
