"""Transaction characteristics and time limits, and how each database sets them.

All of them end with the transaction, so they are safe behind a connection pooler.

Sources: PostgreSQL, "SET TRANSACTION" and "Client Connection Defaults"; MariaDB, "SET
TRANSACTION" and "SET STATEMENT"; SQLite, "PRAGMA Statements" and "Isolation In SQLite".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .._transaction.statement_release import StatementEngine
from ..errors import UsageError
from . import sqlite_units
from .pool_events import guard

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect

    from .._transaction.loan import Loan

__all__ = [
    "AUTOCOMMIT",
    "OF_UNITWORK",
    "STATEMENT",
    "TRANSACTION",
    "BeginDirectives",
    "BindCache",
    "Release",
    "TransactionCharacteristics",
    "apply",
    "check_release",
    "directives_of",
]

OF_UNITWORK = {"unitwork_own": True}
"""The execution options of statements that are not the application's."""
AUTOCOMMIT = "AUTOCOMMIT"
Release = Literal["transaction", "statement"]
TRANSACTION: Release = "transaction"
STATEMENT: Release = "statement"
_CACHE_SIZE = 256  # engines with options; then the cache is cleared


class TransactionCharacteristics(NamedTuple):
    """The characteristics of one transaction, and its time limits in seconds."""

    isolation_level: str | None = None
    read_only: bool = False
    deferrable: bool = False
    timeout: float | None = None
    lock_timeout: float | None = None
    deferred: bool = False
    """Whether SQLite takes the write lock at the first write, not at BEGIN."""
    release: Release = TRANSACTION
    """After what the connection is released, as long as nothing is written."""
    replica: bool | None = None
    """Whether a transaction that only reads may do so from a replica."""


class BeginDirectives(NamedTuple):
    """What applies the characteristics of a transaction in one database."""

    execution_options: Mapping[str, Any] = {}
    """Those of the engine: SQLAlchemy or its driver applies them at BEGIN."""
    first_statement: str = ""
    statement_prefix: str = ""
    """What each statement of the transaction begins with."""
    read_only: bool = False
    client_side_read_only: bool = False
    """Whether writes are rejected client-side: AUTOCOMMIT has no transaction."""


_Key = tuple["Engine", TransactionCharacteristics]


class BindCache(dict[_Key, "tuple[Engine, BeginDirectives]"]):
    """The engines of one database, with the execution options of its transactions."""

    nests = False
    """Whether its transactions are savepoints of one that is open: in a sandbox."""

    def __init__(
        self,
        engines: Collection[Engine] = (),
        *,
        defers_write_lock: bool = False,
        shares_transactions: bool = False,
        release: Release = TRANSACTION,
    ) -> None:
        super().__init__()
        self._guarded = {each.dialect for each in engines}
        self.has_defaults = any(each.dialect.name == "sqlite" for each in engines)
        """Whether there is something to apply without any characteristics."""
        self.unchanged = frozenset(() if self.has_defaults else engines)
        """Engines that `find()` returns as they are, without any characteristics."""
        self.defers_write_lock = defers_write_lock
        """Whether a transaction that does not write is to be `deferred`."""
        self.shares_transactions = shares_transactions
        """Whether it was given a connection, whose owner ends the transaction."""
        self.release: Release = release
        """The release mode of its units, if they have no other."""

    def find(
        self, engine: Engine, wanted: TransactionCharacteristics | None
    ) -> tuple[Engine, BeginDirectives | None]:
        """The engine to connect with, and what applies the *wanted* characteristics.

        *engine* may be the original one, or one that this has returned.
        """
        if engine.dialect not in self._guarded:  # only `get_bind()` or `binds` has it
            guard(engine)
            self._guarded.add(engine.dialect)
        if wanted is None:
            if not self.has_defaults:
                return engine, None
            wanted = TransactionCharacteristics()
        found = self.get((engine, wanted))
        if found is None:
            if len(self) >= _CACHE_SIZE:
                self.clear()
            directives = directives_of(engine.dialect, wanted)
            bind = engine
            if directives.execution_options:
                bind = engine.execution_options(**directives.execution_options)
            if wanted.release == STATEMENT:
                bind = StatementEngine(bind, {})
            found = self[engine, wanted] = self[bind, wanted] = (bind, directives)
        return found


def directives_of(
    dialect: Dialect, wanted: TransactionCharacteristics
) -> BeginDirectives:
    """What applies *wanted*; raises `UsageError` for what the database has not."""
    found = _DIRECTIVES.get(dialect.name, _other)(dialect, wanted)
    if wanted.release == TRANSACTION:
        return found
    if dialect.name not in _DIRECTIVES:
        raise UsageError(f"{dialect.name} has no release={STATEMENT!r}; leave it out")
    begin = found.execution_options.get(sqlite_units.BEGIN)
    if not begin:
        return found
    options = {**found.execution_options, sqlite_units.BEGIN: ""}  # not at the connect
    return found._replace(execution_options=options, first_statement=begin)


def _postgresql(
    dialect: Dialect, wanted: TransactionCharacteristics
) -> BeginDirectives:
    """Put the characteristics into BEGIN, and set the time limits by one SELECT."""
    options: dict[str, Any] = {}
    if wanted.isolation_level is not None:
        options["isolation_level"] = wanted.isolation_level
    autocommit = wanted.isolation_level == AUTOCOMMIT
    if wanted.read_only and not autocommit:
        options["postgresql_readonly"] = True
    if wanted.deferrable:
        options["postgresql_deferrable"] = True
    limits = {"statement_timeout": wanted.timeout, "lock_timeout": wanted.lock_timeout}
    calls = [
        f"set_config('{name}', '{_milliseconds(limit)}', true)"
        for name, limit in limits.items()
        if limit is not None
    ]
    statement = f"SELECT {', '.join(calls)}" if calls else ""
    return BeginDirectives(
        options, statement, "", wanted.read_only, client_side_read_only=autocommit
    )


def _sqlite(dialect: Dialect, wanted: TransactionCharacteristics) -> BeginDirectives:
    """Set pragmas of the connection for one transaction; SQLite is serializable."""
    _reject(dialect, wanted, "deferrable", "timeout")
    options: dict[str, Any] = {}
    autocommit = wanted.isolation_level == AUTOCOMMIT
    if sqlite_units.has_defaults(dialect):
        deferred = wanted.deferred or wanted.read_only
        begin = "BEGIN" if deferred else "BEGIN IMMEDIATE"
        options[sqlite_units.BEGIN] = "" if autocommit else begin
    pragmas = {}
    if wanted.read_only or autocommit:
        pragmas["query_only"] = 1
    if wanted.lock_timeout is not None:
        pragmas["busy_timeout"] = _milliseconds(wanted.lock_timeout) or 2**31 - 1
    if pragmas:
        options["unitwork_pragmas"] = pragmas
    client_side_read_only = autocommit and not wanted.read_only
    return BeginDirectives(
        options, "", "", wanted.read_only, client_side_read_only=client_side_read_only
    )


def _mysql(dialect: Dialect, wanted: TransactionCharacteristics) -> BeginDirectives:
    """Set the next transaction's characteristics, and the limits of each statement."""
    _reject(dialect, wanted, "deferrable")
    autocommit = wanted.isolation_level == AUTOCOMMIT
    characteristics = []
    if wanted.isolation_level is not None and not autocommit:
        characteristics.append(f"ISOLATION LEVEL {wanted.isolation_level}")
    if wanted.read_only and not autocommit:
        characteristics.append("READ ONLY")
    limits = []
    if wanted.timeout is not None:  # 0 is none
        limits.append(f"max_statement_time={_milliseconds(wanted.timeout) / 1000}")
    if wanted.lock_timeout is not None:  # whole seconds
        seconds = min(wanted.lock_timeout, 2**30)
        limits += [
            f"innodb_lock_wait_timeout={math.ceil(seconds)}",
            f"lock_wait_timeout={math.ceil(seconds)}",
        ]
    return BeginDirectives(
        {"isolation_level": AUTOCOMMIT} if autocommit else {},
        f"SET TRANSACTION {', '.join(characteristics)}" if characteristics else "",
        f"SET STATEMENT {', '.join(limits)} FOR " if limits else "",
        wanted.read_only,
        client_side_read_only=autocommit,
    )


def _other(dialect: Dialect, wanted: TransactionCharacteristics) -> BeginDirectives:
    _reject(dialect, wanted, "read_only", "deferrable", "timeout", "lock_timeout")
    options = {"isolation_level": wanted.isolation_level}
    return BeginDirectives(
        options if wanted.isolation_level is not None else {},
        client_side_read_only=wanted.isolation_level == AUTOCOMMIT,
    )


def check_release(release: object) -> None:
    """Raise `UsageError` unless *release* is one of the modes, or `None`."""
    if release not in (None, TRANSACTION, STATEMENT):
        raise UsageError(
            f"release is {release!r}; give {TRANSACTION!r} or {STATEMENT!r}"
        )


_Maker = Callable[["Dialect", TransactionCharacteristics], BeginDirectives]
_DIRECTIVES: dict[str, _Maker] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "mysql": _mysql,
    "mariadb": _mysql,
}


def _reject(dialect: Dialect, wanted: TransactionCharacteristics, *names: str) -> None:
    for name in names:
        if (value := getattr(wanted, name)) and value != math.inf:
            raise UsageError(
                f"{dialect.name} has no {name} of a transaction, and {name}="
                f"{value!r} is set; leave it out"
            )


def _milliseconds(seconds: float) -> int:
    """The unit of PostgreSQL and SQLite; 0 is no limit, and so is infinity."""
    return 0 if math.isinf(seconds) else max(1, math.ceil(seconds * 1000))


def apply(connection: Connection, loan: Loan, directives: BeginDirectives) -> None:
    """Apply *directives* to the transaction that has just begun."""
    dialect = connection.dialect
    if directives.statement_prefix and not getattr(dialect, "is_mariadb", False):
        raise UsageError(
            "MySQL has no time limits of a transaction, and timeout or "
            "lock_timeout is set; leave it out"
        )
    loan.read_only = directives.read_only
    loan.client_side_read_only = directives.client_side_read_only
    if directives.first_statement:
        connection.exec_driver_sql(directives.first_statement, None, OF_UNITWORK)
    if dialect.name == "sqlite" and not directives.client_side_read_only:
        sqlite_units.check_transactional(connection)
    loan.statement_prefix = directives.statement_prefix
