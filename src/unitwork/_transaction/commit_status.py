"""Finds out from the database whether a COMMIT without acknowledgement took effect.

PostgreSQL records the commit status of each transaction for this purpose; see
`txid_status()` in "Transaction ID and Snapshot Information Functions" of its manual.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from .._callables import returned_plainly
from .._classify.classification import classify
from ..errors import CommitUnknownError
from .connection_state import known_state, loan_of

__all__ = [
    "CommitVerifier",
    "Installation",
    "Mark",
    "PendingVerification",
    "TransactionStatus",
    "committed_here",
    "fetch_row",
    "fresh_connection",
    "installation_of",
    "query_within",
    "status_since",
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
        until `verify_timeout` is over. Raise `CommitUnknownError` if it can't be known
        any more. Never return `False` while COMMIT may still happen.
        """


class TransactionStatus:
    """Verifies by PostgreSQL's own commit status; its transaction id comes with BEGIN.

    A unit that was not expected to write, and has, pays a round trip for it at COMMIT.

    The transaction id alone is not enough. After a failover it may be that of another
    transaction, and also after a crash: ids that were not in the log yet are assigned
    again. So "committed" counts only on the same timeline of the same installation,
    which has not crashed since. "Aborted" also counts after that: a transaction whose
    COMMIT is in the log keeps its id.
    """

    def before_commit(self, connection: Connection) -> Mark | None:
        loan = loan_of(connection)
        if loan is not None and isinstance(loan.mark, Mark):
            return loan.mark
        try:
            (txid,) = fetch_row(connection, _TRANSACTION_ID)
        except connection.dialect.loaded_dbapi.Error:
            # Once more, so that SQLAlchemy wraps the error as that of any statement.
            (txid,) = connection.exec_driver_sql(_TRANSACTION_ID).one()
        return None if txid is None else Mark(txid, installation_of(connection))

    def committed(self, connection: Connection, mark: Mark) -> bool | None:
        now = _fetch_installation(connection)
        if mark.installation == now:
            return committed_here(connection, mark.txid)
        if not now.succeeds(mark.installation):
            return None
        status = status_since(connection, mark.txid)
        if status == "committed":
            raise CommitUnknownError(_ASSIGNED_AGAIN)
        # One "in progress" may be the same: behind a pooler another server may have
        # assigned the id than the one whose identity was queried.
        return False if status == "aborted" else None


def committed_here(connection: Connection, txid: int) -> bool | None:
    """Whether *txid* was committed, on the server that has assigned it."""
    status = _fetch_status(connection, txid)
    if status == "in progress":
        # COMMIT has not arrived, and must not any more: end its session.
        connection.execute(text(_TERMINATE), {"txid": txid % 2**32})
    return {"committed": True, "aborted": False}.get(status)


def status_since(connection: Connection, txid: int) -> str:
    """The status of *txid* after a crash or failover; maybe that of another one.

    "aborted" if the log does not even have that id.
    """
    try:
        return _fetch_status(connection, txid)
    except DBAPIError as error:
        if classify(error).code != _IN_THE_FUTURE:
            raise
        return "aborted"


def _fetch_status(connection: Connection, txid: int) -> str:
    return str(connection.execute(text(_STATUS), {"txid": txid}).scalar_one())


class Mark(NamedTuple):
    """A transaction id, and the server on which it is valid."""

    txid: int
    installation: Installation


class Installation(NamedTuple):
    """A server: its system, the time of its last crash, its timeline."""

    system: int
    stats_reset: object
    timeline: str | None
    """Eight hexadecimal digits; `None` for a standby."""

    def succeeds(self, former: Installation) -> bool:
        """Whether it is the *former* one at a later time, or its standby."""
        if self.timeline is None or former.timeline is None:
            return False
        return self.system == former.system and self.timeline >= former.timeline

    def is_next_to(self, former: Installation) -> bool:
        """Whether it is the same after one failover, and not after more of them."""
        timelines = (self.timeline or "0", former.timeline or "0")
        now, before = (int(each, base=16) for each in timelines)
        return self.system == former.system and now == before + 1


def installation_of(connection: Connection) -> Installation:
    """What identifies the server of *connection*, which is queried once for each."""
    state = known_state(connection)
    if state.installation is None:
        state.installation = _fetch_installation(connection)
    found: Installation = state.installation
    return found


def _fetch_installation(connection: Connection) -> Installation:
    """What identifies the server of *connection*.

    A crash resets the server's statistics, and the time of that is recorded.
    """
    return Installation(*fetch_row(connection, _INSTALLATION))


def fetch_row(connection: Connection, sql: str) -> Sequence[Any]:
    """Fetch a row without SQLAlchemy, which would take longer than the server."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql)
        row: Sequence[Any] = cursor.fetchall()[0]
    finally:
        cursor.close()
    return row


_TRANSACTION_ID = "SELECT txid_current_if_assigned()"
_IN_THE_FUTURE = "22023"
_ASSIGNED_AGAIN = (
    "the server has crashed or failed over since, and may have assigned the id of the "
    "transaction again"
)
_STATUS = "SELECT txid_status(CAST(:txid AS bigint))"
_INSTALLATION = """
SELECT system_identifier, stats_reset, CASE WHEN NOT pg_is_in_recovery()
THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END
FROM pg_control_system(), pg_stat_bgwriter
"""
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

    def query(self) -> bool | None:
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
    found = query_within(lambda: {each.query() for each in pending}, is_async, limit)
    return found.pop() if found is not None and len(found) == 1 else None


def query_within(query: Callable[[], T], is_async: bool, limit: float) -> T | None:
    """Call *query*; `None` if it raises, or takes longer than *limit* seconds.

    Raises its `CommitUnknownError`: then it must not be called again.
    A sync driver may hang while it connects, so it is called in a thread of its own.
    The *limit* of an async one is up to the caller.
    """
    found: list[T] = []
    unknowable: list[CommitUnknownError] = []

    def call() -> None:
        try:
            found.append(query())
        except CommitUnknownError as error:
            unknowable.append(error)
        except Exception as error:
            log.info("the outcome of a COMMIT is not known yet", exc_info=error)

    if is_async:
        call()
    else:
        call_here = partial(copy_context().run, call)  # a test redirects by context
        thread = Thread(target=call_here, name="unitwork-verify", daemon=True)
        thread.start()
        thread.join(limit)
    if unknowable:
        raise unknowable[0]
    return found[0] if found else None
