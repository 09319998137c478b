"""What a transaction asks for as it begins, in the words of each engine.

All of it ends with the transaction, so that no pooler can hand it to somebody else.

Sources: PostgreSQL, "SET TRANSACTION" and "Client Connection Defaults"; MariaDB, "SET
TRANSACTION" and "SET STATEMENT"; SQLite, "PRAGMA Statements" and "Isolation In SQLite".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import event

from ._line import KEY, Line, line_of
from .errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState

__all__ = ["AUTOCOMMIT", "Begin", "Binds", "listen_for_pragmas", "tell"]

AUTOCOMMIT = "AUTOCOMMIT"
_KEPT = 256  # engines with options that are kept for the next transaction like that


class Begin(NamedTuple):
    """What one transaction asks for. Times are in seconds."""

    isolation_level: str | None = None
    read_only: bool = False
    deferrable: bool = False
    timeout: float | None = None
    lock_timeout: float | None = None
    deferred: bool = False
    """Whether SQLite takes no lock before it has to: few expect it to write."""


class Opening(NamedTuple):
    """How an engine is told."""

    options: Mapping[str, Any] = {}
    """Execution options of the engine: SQLAlchemy folds them into BEGIN."""
    statement: str = ""
    """To be sent as the first of the transaction."""
    prefix: str = ""
    """What each statement begins with."""
    read_only: bool = False
    guarded: bool = False
    """Whether nobody but us would refuse to write."""


class Binds(dict["tuple[Engine, Begin]", "tuple[Engine, Opening]"]):
    """The engines of one database, as the transactions so far have asked for them."""

    two_begins = False
    """Whether a transaction that won't write is begun in another way."""

    def find(self, engine: Engine, begin: Begin) -> tuple[Engine, Opening]:
        found = self.get((engine, begin))
        if found is None:
            if len(self) >= _KEPT:
                self.clear()
            opening = _OPENINGS.get(engine.dialect.name, _other)(engine.dialect, begin)
            bind = engine
            if opening.options:
                bind = engine.execution_options(**opening.options)
            found = self[engine, begin] = self[bind, begin] = (bind, opening)
        return found


def _postgresql(dialect: Dialect, begin: Begin) -> Opening:
    """Fold into BEGIN what can be, and set the time limits by one SELECT."""
    options: dict[str, Any] = {}
    if begin.isolation_level is not None:
        options["isolation_level"] = begin.isolation_level
    alone = begin.isolation_level == AUTOCOMMIT
    if begin.read_only and not alone:
        options["postgresql_readonly"] = True
    if begin.deferrable:
        options["postgresql_deferrable"] = True
    limits = {"statement_timeout": begin.timeout, "lock_timeout": begin.lock_timeout}
    calls = [
        f"set_config('{name}', '{_milliseconds(limit)}', true)"
        for name, limit in limits.items()
        if limit is not None
    ]
    statement = f"SELECT {', '.join(calls)}" if calls else ""
    return Opening(options, statement, "", begin.read_only, guarded=alone)


def _sqlite(dialect: Dialect, begin: Begin) -> Opening:
    """Set what a connection is told, for the transaction; SQLite is serializable."""
    _lacks(dialect, begin, "deferrable", "timeout")
    options: dict[str, Any] = {}
    alone = begin.isolation_level == AUTOCOMMIT
    if alone:
        options["unitwork_begin"] = ""
    elif begin.deferred or begin.read_only:
        options["unitwork_begin"] = "BEGIN"
    pragmas = {}
    if begin.read_only:
        pragmas["query_only"] = 1
    if begin.lock_timeout is not None:
        pragmas["busy_timeout"] = _milliseconds(begin.lock_timeout) or 2**31 - 1
    if pragmas:
        options["unitwork_pragmas"] = pragmas
    guarded = alone and not begin.read_only
    return Opening(options, "", "", begin.read_only, guarded=guarded)


def _mysql(dialect: Dialect, begin: Begin) -> Opening:
    """Set the next transaction's characteristics, and the limits of each statement."""
    _lacks(dialect, begin, "deferrable")
    alone = begin.isolation_level == AUTOCOMMIT
    wanted = []
    if begin.isolation_level is not None and not alone:
        wanted.append(f"ISOLATION LEVEL {begin.isolation_level}")
    if begin.read_only and not alone:
        wanted.append("READ ONLY")
    limits = []
    if begin.timeout is not None:  # 0 is none
        limits.append(f"max_statement_time={_milliseconds(begin.timeout) / 1000}")
    if begin.lock_timeout is not None:  # whole seconds
        seconds = min(begin.lock_timeout, 2**30)
        limits += [
            f"innodb_lock_wait_timeout={math.ceil(seconds)}",
            f"lock_wait_timeout={math.ceil(seconds)}",
        ]
    return Opening(
        {"isolation_level": AUTOCOMMIT} if alone else {},
        f"SET TRANSACTION {', '.join(wanted)}" if wanted else "",
        f"SET STATEMENT {', '.join(limits)} FOR " if limits else "",
        begin.read_only,
        guarded=alone,
    )


def _other(dialect: Dialect, begin: Begin) -> Opening:
    _lacks(dialect, begin, "read_only", "deferrable", "timeout", "lock_timeout")
    options = {"isolation_level": begin.isolation_level}
    return Opening(
        options if begin.isolation_level is not None else {},
        guarded=begin.isolation_level == AUTOCOMMIT,
    )


_OPENINGS: dict[str, Callable[[Dialect, Begin], Opening]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "mysql": _mysql,
    "mariadb": _mysql,
}


def _lacks(dialect: Dialect, begin: Begin, *names: str) -> None:
    for name in names:
        if (value := getattr(begin, name)) and value != math.inf:
            raise UsageError(
                f"{dialect.name} knows no {name} of a transaction, and {name}="
                f"{value!r} was asked for; leave it out"
            )


def _milliseconds(seconds: float) -> int:
    """What PostgreSQL counts in; 0 is no limit, and so is infinity."""
    return 0 if math.isinf(seconds) else max(1, math.ceil(seconds * 1000))


def tell(connection: Connection, line: Line, opening: Opening) -> None:
    """Tell the database what the transaction that has just begun asks for."""
    dialect = connection.dialect
    if opening.prefix and not getattr(dialect, "is_mariadb", False):
        raise UsageError(
            "MySQL knows no time limits of a transaction, and timeout or "
            "lock_timeout was asked for; leave it out"
        )
    line.read_only, line.guarded = opening.read_only, opening.guarded
    if opening.statement:
        connection.exec_driver_sql(opening.statement)
    line.prefix = opening.prefix


def listen_for_pragmas(engine: Engine) -> None:
    """Tell SQLite connections what a transaction asks for.

    They are the connection's, not the transaction's: so put them back at its end.
    """

    @event.listens_for(engine, "engine_connect")  # before BEGIN waits for a lock
    def engine_connect(connection: Connection) -> None:
        _apply(connection, "busy_timeout")

    @event.listens_for(engine, "begin")  # a BEGIN IMMEDIATE would be refused after it
    def begin(connection: Connection) -> None:
        _apply(connection, "query_only")

    @event.listens_for(engine, "reset")
    def reset(
        dbapi_connection: Any, record: ConnectionPoolEntry, state: PoolResetState
    ) -> None:
        line: Line | None = record.info.get(KEY)
        if line is None or not line.pragmas or state.terminate_only:
            return
        pragmas, line.pragmas = line.pragmas, {}
        _set(dbapi_connection, pragmas, {})


def _apply(connection: Connection, name: str) -> None:
    pragmas = connection.get_execution_options().get("unitwork_pragmas")
    if pragmas is not None and name in pragmas and (line := line_of(connection)):
        _set(connection.connection, {name: pragmas[name]}, line.pragmas)


def _set(
    dbapi_connection: Any, pragmas: Mapping[str, Any], before: dict[str, Any]
) -> None:
    cursor = dbapi_connection.cursor()
    for name, value in pragmas.items():
        cursor.execute(f"PRAGMA {name}")
        before.setdefault(name, cursor.fetchone()[0])
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()
