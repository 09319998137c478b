"""A statement that lasts until the test lets it go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import psycopg
from sqlalchemy import event, make_url, text
from sqlalchemy.orm import Session

from support.flavours import Flavour
from support.pool import eventually

LOCK = 7
SECONDS = 8.0
WAITS = """
    SELECT query FROM pg_stat_activity
    WHERE wait_event = 'advisory' AND datname = current_database()
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
        """Wait until somebody executes it."""
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
def holding(flavour: Flavour) -> Iterator[Hold]:
    """Hold a statement on the database of *flavour*, within limits.

    What waits for it without end fails its test, and does not hang.
    """
    with ExitStack() as stack:
        if flavour.is_sqlite:
            hold: Hold = _SQLiteHold(flavour)
        else:
            plain = make_url(flavour.url).set(drivername="postgresql")
            line = psycopg.connect(plain.render_as_string(False), autocommit=True)
            hold = _PostgreSQLHold(stack.enter_context(line))
        stack.callback(hold.release)
        limit = asyncio.get_running_loop().call_later(SECONDS, hold.release)
        stack.callback(limit.cancel)
        yield hold


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run *work* beside the test, and see it ended at the latest now."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
