"""Finds out from the database whether a COMMIT without acknowledgement took effect.

PostgreSQL records the commit status of each transaction for this purpose; see
`txid_status()` in "Transaction ID and Snapshot Information Functions" of its manual.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection, Engine, text

from .._callables import returned_plainly

__all__ = [
    "CommitVerifier",
    "PendingVerification",
    "TransactionStatus",
    "ask_within",
    "fresh_connection",
    "verifier_for",
    "verify",
]

log = logging.getLogger("unitwork")

T = TypeVar("T")


@runtime_checkable
class CommitVerifier(Protocol):
    """Finds out whether a COMMIT whose connection was lost has been committed.

    Both methods get a plain `Connection`, for async databases as well (in a greenlet of
    SQLAlchemy's), and may be called by several threads at once.

    .. versionadded:: 0.1
    """

    def before_commit(self, connection: Connection) -> object | None:
        """Return what identifies a transaction that has written; it may write it, too.

        Called last before COMMIT; an exception makes the commit fail. `None` means that
        this transaction can't be identified: its outcome will be unknown.
        """

    def committed(self, connection: Connection, mark: Any) -> bool | None:
        """Return, on a new connection, whether the transaction of *mark* has committed.

        `None`, or an exception, means that this is not known yet: it is called again
        until `verify_timeout` is over. Never return `False` while COMMIT may still
        happen.
        """


class TransactionStatus:
    """Verifies by PostgreSQL's own commit status: one more round trip at COMMIT.

    The transaction id alone is not enough. After a failover it may be that of another
    transaction, and also after a crash: ids that were not in the log yet are assigned
    again. So the status counts only on the same timeline of the same installation,
    which has not crashed since.
    """

    def before_commit(self, connection: Connection) -> _Mark | None:
        try:
            txid, timeline = _fetch(connection, _TRANSACTION_ID)
        except connection.dialect.loaded_dbapi.Error:
            # Once more, so that SQLAlchemy wraps the error as that of any statement.
            txid, timeline = connection.exec_driver_sql(_TRANSACTION_ID).one()
        return (
            None if txid is None else _Mark(txid, timeline, *_installation(connection))
        )

    def committed(self, connection: Connection, mark: _Mark) -> bool | None:
        found = connection.execute(text(_STATUS), {"txid": mark.txid}).one()
        if mark != _Mark(mark.txid, found.timeline, *_installation(connection)):
            return None
        if found.status == "in progress":
            # COMMIT has not arrived, and must not any more: end its session.
            connection.execute(text(_TERMINATE), {"txid": mark.txid % 2**32})
        return {"committed": True, "aborted": False}.get(found.status)


class _Mark(NamedTuple):
    """A transaction id, and the server on which it is valid."""

    txid: int
    timeline: str | None
    system: int
    stats_reset: object


def _installation(connection: Connection) -> tuple[int, object]:
    """The system identifier, and the time of the last crash; fixed for a connection.

    A crash resets the server's statistics, and the time of that is recorded.
    """
    known: tuple[int, object] | None = connection.info.get(_INSTALLATION)
    if known is None:
        known = tuple(connection.exec_driver_sql(_INSTALLATION).one())
        connection.info[_INSTALLATION] = known
    return known


def _fetch(connection: Connection, sql: str) -> Sequence[Any]:
    """Fetch a row without SQLAlchemy, which would take longer than the server."""
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
_TRANSACTION_ID = f"SELECT txid_current_if_assigned(), {_TIMELINE}"
_STATUS = f"SELECT txid_status(CAST(:txid AS bigint)) AS status, {_TIMELINE}"
_INSTALLATION = (
    "SELECT system_identifier, stats_reset FROM pg_control_system(), pg_stat_bgwriter"
)
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE CAST(CAST(backend_xid AS text) AS bigint) = CAST(:txid AS bigint)
AND state LIKE 'idle in transaction%'
"""
_BUILT_IN: dict[str, CommitVerifier] = {"postgresql": TransactionStatus()}


def verifier_for(
    connection: Connection, wanted: bool | CommitVerifier
) -> CommitVerifier | None:
    """The verifier for *connection*; *wanted* is the setting `verify_commit`."""
    if isinstance(wanted, bool):
        return _BUILT_IN.get(connection.dialect.name) if wanted else None
    return wanted


class PendingVerification(NamedTuple):
    """The COMMIT of one connection, and how to verify it."""

    engine: Engine
    verifier: CommitVerifier
    mark: object

    def ask(self) -> bool | None:
        """Whether it has been committed, by a new connection; `None`: not known yet."""
        with fresh_connection(self.engine) as fresh:
            committed = self.verifier.committed(fresh, self.mark)
            returned_plainly("committed() of a CommitVerifier", committed, bool, None)
            return committed


@contextmanager
def fresh_connection(engine: Engine) -> Iterator[Connection]:
    """A connection outside the pool, whose own may be lost, or all in use."""
    pool = engine.pool.recreate()
    try:
        with Engine(pool, engine.dialect, engine.url).connect() as fresh:
            yield fresh
    finally:
        pool.dispose()


def verify(
    pending: Sequence[PendingVerification], is_async: bool, limit: float
) -> bool | None:
    """Whether all *pending* COMMITs were committed, or none; `None`: not known yet."""
    found = ask_within(lambda: {each.ask() for each in pending}, is_async, limit)
    return found.pop() if found is not None and len(found) == 1 else None


def ask_within(question: Callable[[], T], is_async: bool, limit: float) -> T | None:
    """Call *question*; `None` if it raises, or takes longer than *limit* seconds.

    A sync driver may hang while it connects, so it is called in a thread of its own.
    The *limit* of an async one is up to the caller.
    """
    found: list[T] = []

    def call() -> None:
        try:
            found.append(question())
        except Exception as error:
            log.info("the outcome of a COMMIT is not known yet", exc_info=error)

    if is_async:
        call()
    else:
        thread = Thread(target=call, name="unitwork-verify", daemon=True)
        thread.start()
        thread.join(limit)
    return found[0] if found else None
