"""Which connections wait for a lock, and for whose: the server is queried for that.

On a connection of its own, never one of the pool, while the page is looked at, at
most once a second, and with a time limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from concurrent.futures import Future
from contextvars import Context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from .._driver.sqlalchemy_internals import unpooled

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Blocker", "Locks"]

_EVERY = 1.0  # seconds between two queries at least
_LIMIT = 2.0  # seconds for one, connecting included
_PATIENCE = 0.5  # seconds that a reader waits for it

_POSTGRESQL = """
SELECT waiting.pid, blocking.pid, b.application_name, b.state,
       extract(epoch FROM clock_timestamp() - b.xact_start)
FROM unnest(ARRAY[{}]::int[]) AS waiting(pid)
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocking(pid)
LEFT JOIN pg_stat_activity AS b ON b.pid = blocking.pid
"""
_MARIADB = """
SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id, p.user,
       lower(p.command), timestampdiff(MICROSECOND, b.trx_started, now(6)) / 1e6
FROM information_schema.innodb_lock_waits AS w
JOIN information_schema.innodb_trx AS r ON r.trx_id = w.requesting_trx_id
JOIN information_schema.innodb_trx AS b ON b.trx_id = w.blocking_trx_id
LEFT JOIN information_schema.processlist AS p ON p.id = b.trx_mysql_thread_id
WHERE r.trx_mysql_thread_id IN ({})
"""


class Blocker(NamedTuple):
    """What another connection waits for. Seconds are those of its transaction."""

    pid: int
    """0 is a prepared transaction of PostgreSQL's."""
    client: str
    state: str
    seconds: float | None


Found = dict[int, list[Blocker]]
"""By the ids of the connections that wait."""
Answer = Future[tuple[Found, str]]
"""What was found, or why nothing was."""


class Locks:
    """The lock waits of one database, as of the last query."""

    def __init__(self, engine: Engine) -> None:
        self._sql = _query_for(engine)
        self.engine = engine
        self._asked_at = -_EVERY
        self._under_way: Answer | None = None
        self._found: Found = {}
        self.trouble = ""
        """Why the last query has failed."""

    @property
    def found(self) -> Found:
        return self._found

    async def refresh(self, waiting: Collection[int]) -> None:
        """Find out what the connections *waiting* are blocked by, if it is time to.

        Returns after half a second at the latest, then with what is known from before.
        """
        if self._sql is None:
            return
        now = time.monotonic()
        if not waiting:
            self._found = {}
        elif self._under_way is None and now - self._asked_at >= _EVERY:
            self._asked_at = now
            self._start(self._sql.format(", ".join(map(str, sorted(waiting)))))
        left = self._asked_at + _PATIENCE - now
        if self._under_way is not None and left > 0:
            future = asyncio.wrap_future(self._under_way)
            await asyncio.wait((future,), timeout=left)

    def _start(self, sql: str) -> None:
        self._under_way = answer = Answer()
        answer.add_done_callback(self._answered)
        if self.engine.dialect.is_async:
            # In a context of its own: a transport keeps the one it was created in.
            task = asyncio.create_task(_aquery(self.engine, sql), context=Context())
            task.add_done_callback(partial(_hand_over, answer))
        else:
            Thread(target=_query, args=(self.engine, sql, answer), daemon=True).start()

    def _answered(self, answer: Answer) -> None:
        self._under_way = None
        self._found, self.trouble = answer.result()


def _query_for(engine: Engine) -> str | None:
    if engine.dialect.name == "postgresql":
        return _POSTGRESQL
    return _MARIADB if getattr(engine.dialect, "is_mariadb", False) else None


def _query(engine: Engine, sql: str, answer: Answer) -> None:
    try:
        with unpooled(engine).connect() as connection:
            found = _read(connection, sql)
    except BaseException as error:
        answer.set_result(({}, type(error).__name__))
    else:
        answer.set_result((found, ""))


async def _aquery(engine: Engine, sql: str) -> Found:
    from sqlalchemy.ext.asyncio import AsyncEngine  # needs greenlet

    async with (
        asyncio.timeout(_LIMIT),
        AsyncEngine(unpooled(engine)).connect() as connection,
    ):
        return await connection.run_sync(_read, sql)


def _read(connection: Connection, sql: str) -> Found:
    found: Found = {}
    if connection.dialect.name == "postgresql":
        # For this transaction only: a pooler may give the connection to others.
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_LIMIT * 1000:.0f}")
    for waiting, pid, client, state, seconds in connection.exec_driver_sql(sql):
        age = None if seconds is None else float(seconds)
        found.setdefault(waiting, []).append(
            Blocker(pid, client or "", state or "", age)
        )
    return found


def _hand_over(answer: Answer, task: asyncio.Task[Found]) -> None:
    if task.cancelled():
        answer.set_result(({}, "cancelled"))
    elif (error := task.exception()) is not None:
        answer.set_result(({}, type(error).__name__))
    else:
        answer.set_result((task.result(), ""))
