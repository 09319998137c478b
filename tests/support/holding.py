"""A statement that lasts until the test lets it go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import Context
from typing import Any

import psycopg
import pymysql
from sqlalchemy import event, make_url, text
from sqlalchemy.orm import Session

from support.flavours import MARIADB, Flavour, connect_mariadb
from support.pool import eventually

LOCK = 7
SECONDS = 8.0
WAITS = """
    SELECT query FROM pg_stat_activity
    WHERE wait_event = 'advisory' AND datname = current_database()
"""
WAITS_IN_MARIADB = """
    SELECT info FROM information_schema.processlist
    WHERE state = 'User lock' AND db = DATABASE()
"""


class Hold:
    """The statement *sql* does not end before `release()`."""

    sql: str

    def execute(self, session: Session) -> str:
        session.execute(text(self.sql))
        return "done"

    def waiting(self) -> int:
        """How many execute it just now."""
        raise NotImplementedError

    def statements(self) -> list[str]:
        """What they have sent to the server."""
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError

    async def reached(self, count: int = 1) -> None:
        """Wait until it is executed."""
        await eventually(lambda: self.waiting() >= count)


class _PostgreSQLHold(Hold):
    sql = f"SELECT pg_advisory_xact_lock({LOCK})"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        connection.execute(f"SELECT pg_advisory_lock({LOCK})")

    def waiting(self) -> int:
        return len(self.statements())

    def statements(self) -> list[str]:
        return [row[0].rstrip(";") for row in self._connection.execute(WAITS)]

    def release(self) -> None:
        self._connection.execute("SELECT pg_advisory_unlock_all()")


class _MariaDBHold(Hold):
    """A lock of that name, released at once by the session that gets it."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        database = connection.db.decode()  # the server knows one lock of each name
        self.sql = (
            f"SELECT IF(GET_LOCK('{database}', 60), RELEASE_LOCK('{database}'), 0)"
        )
        self._connection = connection
        self._query(f"SELECT GET_LOCK('{database}', 0)")

    def waiting(self) -> int:
        return len(self.statements())

    def statements(self) -> list[str]:
        return [row[0] for row in self._query(WAITS_IN_MARIADB)]

    def release(self) -> None:
        self._query("SELECT RELEASE_ALL_LOCKS()")

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())


class _SQLiteHold(Hold):
    """A query without end that asks a Python function for each row."""

    sql = """
        WITH RECURSIVE row(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM row WHERE held())
        SELECT count(*) FROM row
    """

    def __init__(self, flavour: Flavour) -> None:
        self._released = threading.Event()
        self._inside: set[int] = set()
        event.listen(flavour.sync_engine, "connect", self._connect)

    def _connect(self, dbapi_connection: Any, record: object) -> None:
        dbapi_connection.create_function("held", 0, self._held)

    def _held(self) -> bool:
        self._inside.add(threading.get_ident())
        return not self._released.wait(0.002)

    def waiting(self) -> int:
        return len(self._inside)

    def release(self) -> None:
        self._released.set()


@contextmanager
def holding(flavour: Flavour, *, seconds: float = SECONDS) -> Iterator[Hold]:
    """Hold a statement on the database of *flavour*, for so many seconds at most.

    What waits for it without end fails its test, and does not hang.
    """
    with ExitStack() as stack:
        if flavour.is_sqlite:
            hold: Hold = _SQLiteHold(flavour)
        elif flavour.name in MARIADB:
            other = connect_mariadb(make_url(flavour.url))
            hold = _MariaDBHold(stack.enter_context(other))
        else:
            plain = make_url(flavour.url).set(drivername="postgresql")
            line = psycopg.connect(plain.render_as_string(False), autocommit=True)
            hold = _PostgreSQLHold(stack.enter_context(line))
        stack.callback(hold.release)
        limit = asyncio.get_running_loop().call_later(seconds, hold.release)
        stack.callback(limit.cancel)
        yield hold


@asynccontextmanager
async def running(
    work: Any, context: Context | None = None
) -> AsyncIterator[asyncio.Task[Any]]:
    """Run *work* beside the test, and see it ended at the latest now."""
    task = asyncio.create_task(work, context=context)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
