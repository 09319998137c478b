"""What became of a COMMIT whose answer never came: the database itself is asked.

PostgreSQL keeps the fate of each transaction, for just this purpose: `txid_status()`,
in the manual under "Transaction ID and Snapshot Information Functions".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection, Engine, text

__all__ = [
    "CommitVerifier",
    "Doubt",
    "TransactionStatus",
    "ask",
    "elsewhere",
    "look",
    "verifier_for",
]

log = logging.getLogger("unitwork")

T = TypeVar("T")


@runtime_checkable
class CommitVerifier(Protocol):
    """Finds out what became of a COMMIT whose connection broke.

    Both methods get a plain `Connection`, of async databases as well (in a greenlet of
    SQLAlchemy's), and may be called by several threads at once.

    .. versionadded:: 0.1
    """

    def before_commit(self, connection: Connection) -> object | None:
        """Leave a mark in a transaction that has written, or read the one it has.

        Called last before COMMIT; what it raises makes the commit fail. `None` means
        that this transaction can't be found again: its outcome will be unknown.
        """

    def committed(self, connection: Connection, mark: Any) -> bool | None:
        """Look for *mark*, on a new connection: whether it has been committed.

        `None`, or an exception, means that it can't be told yet; asked again until
        `verify_timeout` is over. Never say `False` while COMMIT may still happen.
        """


class TransactionStatus:
    """Verifies by PostgreSQL's own record of the transaction: one round trip more.

    An id alone would not do. After a failover it may mean another transaction, and so
    it may after a crash: ids that had not reached the log are given out again. So the
    answer counts only in the same run of the same history.
    """

    def before_commit(self, connection: Connection) -> _Mark | None:
        try:
            txid, timeline = _fetch(connection, _NUMBER)
        except connection.dialect.loaded_dbapi.Error:
            # Let SQLAlchemy tell, as it would of any other statement.
            txid, timeline = connection.exec_driver_sql(_NUMBER).one()
        return None if txid is None else _Mark(txid, timeline, *_run(connection))

    def committed(self, connection: Connection, mark: _Mark) -> bool | None:
        found = connection.execute(text(_STATUS), {"txid": mark.txid}).one()
        if mark != _Mark(mark.txid, found.timeline, *_run(connection)):
            return None
        if found.status == "in progress":
            # COMMIT has not come through, and never must: let it not wait for that.
            connection.execute(text(_END), {"txid": mark.txid % 2**32})
        return {"committed": True, "aborted": False}.get(found.status)


class _Mark(NamedTuple):
    """A transaction id, and the history in which it means that transaction."""

    txid: int
    timeline: str | None
    system: int
    run: object


def _run(connection: Connection) -> tuple[int, object]:
    """Which installation, in which run since it last crashed: no connection sees two.

    A crash costs the server its statistics, so the time of their reset tells.
    """
    run: tuple[int, object] | None = connection.info.get(_RUN)
    if run is None:
        run = connection.info[_RUN] = tuple(connection.exec_driver_sql(_RUN).one())
    return run


def _fetch(connection: Connection, sql: str) -> Sequence[Any]:
    """Fetch a row without SQLAlchemy's machinery, which costs more than the server."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql)
        row: Sequence[Any] = cursor.fetchall()[0]
    finally:
        cursor.close()
    return row


_TIMELINE = """
CASE WHEN NOT pg_is_in_recovery()
THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END AS timeline
"""
_NUMBER = f"SELECT txid_current_if_assigned(), {_TIMELINE}"
_STATUS = f"SELECT txid_status(CAST(:txid AS bigint)) AS status, {_TIMELINE}"
_RUN = (
    "SELECT system_identifier, stats_reset FROM pg_control_system(), pg_stat_bgwriter"
)
_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE CAST(CAST(backend_xid AS text) AS bigint) = CAST(:txid AS bigint)
AND state LIKE 'idle in transaction%'
"""
_BUILT_IN: dict[str, CommitVerifier] = {"postgresql": TransactionStatus()}


def verifier_for(
    connection: Connection, wanted: bool | CommitVerifier
) -> CommitVerifier | None:
    """The verifier of *connection*, by the setting `verify_commit`."""
    if isinstance(wanted, bool):
        return _BUILT_IN.get(connection.dialect.name) if wanted else None
    return wanted


class Doubt(NamedTuple):
    """The COMMIT of one connection, and how to learn what became of it."""

    engine: Engine
    verifier: CommitVerifier
    mark: object

    def look(self) -> bool | None:
        with elsewhere(self.engine) as fresh:
            return self.verifier.committed(fresh, self.mark)


@contextmanager
def elsewhere(engine: Engine) -> Iterator[Connection]:
    """A connection outside the pool, whose own may be as dead, or all in use."""
    pool = engine.pool.recreate()
    try:
        with Engine(pool, engine.dialect, engine.url).connect() as fresh:
            yield fresh
    finally:
        pool.dispose()


def look(
    doubts: Sequence[Doubt], is_async: bool, limit: float, session: object = None
) -> bool | None:
    """Say whether all *doubts* were committed, or none; `None` if it can't be told."""
    found = ask(lambda: {doubt.look() for doubt in doubts}, is_async, limit)
    return found.pop() if found is not None and len(found) == 1 else None


def ask(question: Callable[[], T], is_async: bool, limit: float) -> T | None:
    """Ask a database in doubt; `None` if it can't answer, or not within the *limit*.

    A sync driver may hang while it connects, so a thread of its own does that.
    """
    found: list[T] = []

    def put() -> None:
        try:
            found.append(question())
        except Exception as error:
            log.info("can't tell yet what became of a COMMIT", exc_info=error)

    if is_async:
        put()
    else:
        thread = Thread(target=put, name="unitwork-verify", daemon=True)
        thread.start()
        thread.join(limit)
    return found[0] if found else None
