"""Pool events: a connection comes back clean, and is checked out clean.

The listeners do no I/O.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import StaticPool

from .._concurrency.fork import forget_after_fork
from .._driver.driver_connection import has_input, left_in_transaction
from .._driver.mysql_status import commits_each
from .._driver.sqlite_connection import is_closed_sqlite
from .._sql.sql_text import MYSQL
from .._transaction import commit_events, session_reset, statement_events
from .._transaction.connection_state import INFO_KEY, ConnectionState
from .._transaction.loan import Loan
from . import sqlite
from .aiosqlite_close import limit_close, prepare_close
from .event_loops import close_in_its_loop, hang_up
from .fork import check_not_inherited, start_afresh
from .per_pool import PerPool
from .sqlite_snapshots import end_snapshots

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["all_loans", "connection_counts", "guard", "loans_of"]


def guard(engine: Engine) -> None:
    """Listen to the pool of *engine* once, though several engines may share it.

    Cheap if it is guarded already.
    """
    _guarded.of(engine)


class _GuardedPool:
    """A pool that is listened to; refers to its engine weakly, or both would last."""

    __slots__ = ("__weakref__", "_engine", "is_kept", "is_static", "records")

    def __init__(self, engine: Engine) -> None:
        self._engine = ref(engine)
        self.is_static = isinstance(engine.pool, StaticPool)
        self.is_kept = engine.dialect.name == "sqlite" and sqlite.is_kept(engine)
        """Whether its only connection is the database, and must not be replaced."""
        self.records: WeakSet[ConnectionPoolEntry] = WeakSet()
        """Its connections, as far as they were opened or used since."""
        forget_after_fork(self)

    def loans(self) -> list[Loan]:
        """The present loans of its connections; called by any thread."""
        try:
            infos = [record.info for record in self.records]
        except RuntimeError:  # another thread opens a connection just now
            return []
        states: list[ConnectionState | None] = [x.get(INFO_KEY) for x in infos]
        return [state.loan for state in states if state is not None]

    def counts(self) -> tuple[int, int]:
        """How many of its connections are open, and in use; called by any thread."""
        for _ in range(3):
            with suppress(RuntimeError):  # another thread opens a connection just now
                records = list(self.records)
                break
        else:
            return 0, 0
        used = sum(record.in_use for record in records)
        return sum(record.dbapi_connection is not None for record in records), used

    def forget_parent(self) -> None:
        engine = self._engine()
        if engine is not None:
            records, self.records = self.records, WeakSet()
            start_afresh(engine, records)


def _listen(engine: Engine) -> _GuardedPool:
    pool = _GuardedPool(engine)
    events = _PoolEvents(engine.dialect, pool)
    if engine.dialect.is_async:
        event.listen(engine, "close", events.close)
    event.listen(engine, "connect", events.connect)
    event.listen(engine, "checkin", events.checkin)
    event.listen(engine, "checkout", events.checkout)
    if pool.is_kept:
        sqlite.keep_connection(engine)
    elif engine.dialect.driver == "aiosqlite" and engine.dialect.has_terminate:
        limit_close(engine.dialect)
    elif engine.dialect.name == "sqlite" and not engine.dialect.is_async:
        sqlite.roll_back_before_close(engine)
    if engine.dialect.name == "sqlite":
        sqlite.listen_for_pragmas(engine)
        if not pool.is_static:
            end_snapshots(engine)
    statement_events.listen(engine)
    commit_events.listen(engine.dialect)
    session_reset.listen(engine)
    return pool


_guarded = PerPool(_listen)


def loans_of(engine: Engine) -> list[Loan]:
    """The present loans of the connections of *engine*'s pool, in use or not."""
    return _guarded.of(engine).loans()


def connection_counts(engine: Engine) -> tuple[int, int]:
    """How many connections of *engine*'s pool are open, and how many are in use."""
    return _guarded.of(engine).counts()


def all_loans() -> list[Loan]:
    """Those of all pools."""
    return [loan for pool in _guarded.values() for loan in pool.loans()]


class _PoolEvents:
    """The listeners of one pool, each named after its event."""

    __slots__ = ("_dialect", "_is_aiosqlite", "_is_mysql", "_pool")

    def __init__(self, dialect: Dialect, pool: _GuardedPool) -> None:
        self._dialect = dialect
        self._is_aiosqlite = dialect.driver == "aiosqlite"
        self._is_mysql = dialect.name in MYSQL
        self._pool = pool

    def connect(
        self, dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry
    ) -> None:
        self._new_state(record)

    def checkin(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        info = record.info
        is_dirty: bool = info.pop(session_reset.IS_DIRTY, False)
        if dbapi_connection is None:
            return
        state: ConnectionState | None = info.get(INFO_KEY)
        if state is None:  # connected before we listened
            if self._is_left_open(record.driver_connection):
                record.invalidate()
            return
        if self._pool.is_static and state.loan.holder is not None:
            return  # by a unit: another user of a shared connection returns it
        if (hold := state.loan.hold) is not None:
            hold.returned()
        state.is_new = False
        state.lend()  # what is known of its last transaction is out of date
        aborted = state.aborted_by_client and not self._pool.is_kept
        driver = state.driver_connection
        left_open = state.in_transaction() and self._is_left_open(driver)
        # SQLAlchemy has noticed that others are: it could not roll back.
        is_closed = self._is_aiosqlite and is_closed_sqlite(driver)
        commits_now = self._is_mysql and commits_each(driver) and not state.commits_each
        if aborted or is_dirty or left_open or is_closed or commits_now:
            record.invalidate()

    def checkout(
        self,
        dbapi_connection: DBAPIConnection,
        record: ConnectionPoolEntry,
        proxy: object,
    ) -> None:
        known: ConnectionState | None = record.info.get(INFO_KEY)
        if known is None:  # connected before we listened
            check_not_inherited(record, is_sqlite=self._dialect.name == "sqlite")
            known = self._new_state(record)
            known.is_new = False
        state = known
        # A statement that outlived its session may have begun a transaction since.
        if state.in_transaction() and self._is_left_open(state.driver_connection):
            raise DisconnectionError("the pooled connection is inside a transaction")
        if state.aborted_by_client:
            raise DisconnectionError("the pooled connection was aborted")
        if state.loop is not None and state.loop is not asyncio.get_running_loop():
            close_in_its_loop(state.loop, record)
            raise DisconnectionError("the pooled connection is another event loop's")
        if self._is_mysql and has_input(state.driver_connection):
            raise DisconnectionError("the server has hung up")

    def _is_left_open(self, driver_connection: Any) -> bool:
        """Whether it is left in a transaction, and is not shared by its users."""
        return not self._pool.is_static and left_in_transaction(driver_connection)

    def close(self, dbapi_connection: object, record: ConnectionPoolEntry) -> None:
        state: ConnectionState | None = record.info.get(INFO_KEY)
        if state is not None:
            state.discarded()
            if state.loop is not None and state.loop.is_closed():
                hang_up(record.driver_connection)
        if self._is_aiosqlite:
            limit = None if state is None else state.loan.end_timeout
            is_kept = self._pool.is_kept
            prepare_close(record.driver_connection, limit, is_kept=is_kept)

    def _new_state(self, record: ConnectionPoolEntry) -> ConnectionState:
        loop = asyncio.get_running_loop() if self._dialect.is_async else None
        state = ConnectionState(loop, record.driver_connection)
        record.info[INFO_KEY] = state
        self._pool.records.add(record)
        return state
