"""The settings of a database: frozen, checked when made."""

from __future__ import annotations

from dataclasses import dataclass

from ._callables import check_callable
from ._observing.sql_comment import ApplicationName, SQLTags
from ._transaction.commit_status import CommitVerifier
from .errors import UsageError

__all__ = ["DatabaseSettings"]

_OPTIONAL = (
    "commit_timeout",
    "slow_unit_warning",
    "hold_warning",
    "idle_limit",
    "replica_max_lag",
    "replica_wait",
)
_TIMES = (*_OPTIONAL, "end_timeout", "verify_timeout", "drain_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How unitwork uses one database. Times are in seconds.

    *end_timeout*: how long a rollback, a cancelled statement, or a stray task that
    still uses the session, may keep a unit from ending; afterwards the connection is
    discarded.
    *commit_timeout*: how long COMMIT may take; afterwards its connection is aborted and
    the outcome is in doubt. `None`: no limit.
    *verify_commit*: query the outcome of a COMMIT in doubt. `True`: on PostgreSQL, for
    which each unit that may write gets a transaction id with the answer to BEGIN. For
    other databases give a `CommitVerifier`. Where there is none the outcome is unknown:
    `CommitUnknownError`. `False`: never.
    *verify_timeout*: how long to repeat the query; then the outcome is unknown.
    *drain_timeout*: how long the shutdown waits for units that are still open; then
    they are rolled back.
    *check_at_startup*: connect once before the application starts, and fail the start
    if that is impossible, or takes 30 seconds.
    *slow_unit_warning*: log a warning for a unit whose transactions have taken more
    seconds together; those of its earlier attempts count. `None`: never.
    *hold_warning*: log a warning for a unit that has held a connection for so many
    seconds, while it still does, with the line that took it, and another message once
    it has returned it. `None`: never.
    *idle_limit*: how long a transaction may be idle; the next statement after that
    raises `UsageError`, and the unit is rolled back. `None`: no limit.
    *replica_max_lag*: a replica that lags further behind is not read from. `None`: no
    limit. *replica_wait*: how long a client's read waits for a replica to replay what
    the client has written; then it goes to the primary. `None`: it does not wait.
    *replica_fallback*: read from the primary if no replica can be read from; `False`:
    raise `DatabaseUnavailableError`, which is answered with 503.
    *transaction_pooler*: PgBouncer or another pooler hands each server connection to
    other clients after each transaction. Drivers then prepare no statements that last,
    and session-level state raises `UsageError`. For PostgreSQL, asyncpg and psycopg.
    *sql_tags*: called with the `unitwork.events.UnitInfo` of a unit, once for each
    connection that it takes, returns tags; each of its statements ends with them, in a
    comment as of sqlcommenter. Give few different values, such as the route: databases
    and drivers cache statements by their text. If it fails, that is logged.
    *application_name*: called with the `unitwork.events.UnitInfo` of a unit for each
    transaction, returns the `application_name` that PostgreSQL shows until it ends. It
    is sent along with BEGIN, by asyncpg or psycopg; other databases and drivers raise
    `UsageError`. Without a transaction, as in AUTOCOMMIT, there is none. Characters
    that are not ASCII, quotes and backslashes become `_`; from the 64th on they are
    left out. If the function fails, that is logged.
    *sqlite_defaults*: give an SQLite database that is opened by its URL write-ahead
    logging; and its units, not other users of the engine, enforced foreign keys and
    `BEGIN IMMEDIATE` where they may write.

    Raises `UsageError` for a time that is not positive, and for a verifier with
    coroutine functions: both methods must be plain, also for async databases.

    .. versionadded:: 0.1
    """

    end_timeout: float = 5.0
    commit_timeout: float | None = 60.0
    verify_commit: bool | CommitVerifier = True
    verify_timeout: float = 10.0
    drain_timeout: float = 10.0
    check_at_startup: bool = False
    slow_unit_warning: float | None = None
    hold_warning: float | None = 5.0
    idle_limit: float | None = None
    replica_max_lag: float | None = 10.0
    replica_wait: float | None = 0.2
    replica_fallback: bool = True
    transaction_pooler: bool = False
    sql_tags: SQLTags | None = None
    application_name: ApplicationName | None = None
    sqlite_defaults: bool = True

    def __post_init__(self) -> None:
        for key in _TIMES:
            value = getattr(self, key)
            if value is None and key in _OPTIONAL:
                continue
            if not isinstance(value, int | float) or not value > 0:  # NaN is neither
                raise UsageError(f"{key} is {value!r}; give seconds, more than 0")
        if self.sql_tags is not None:
            check_callable("sql_tags", self.sql_tags)
        if self.application_name is not None:
            check_callable("application_name", self.application_name)
        if not isinstance(self.verify_commit, bool | CommitVerifier):
            raise UsageError(
                f"verify_commit is {self.verify_commit!r}; give True, False, or an "
                "object with the methods before_commit and committed"
            )
        if isinstance(self.verify_commit, CommitVerifier):
            for method in ("before_commit", "committed"):
                given = getattr(self.verify_commit, method)
                check_callable(f"verify_commit.{method}", given)
