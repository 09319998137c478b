"""What the error codes of databases mean, as tables.

Sources: PostgreSQL, appendix A "Error Codes", section 13.5 "Serialization Failure
Handling" and `plancache.c`; CockroachDB, "Transaction Retry Error Reference"; Aurora
DSQL, "Concurrency control"; MySQL and MariaDB, "Server Error Message Reference"; TiDB,
"Error Codes and Troubleshooting"; SQLite, "Result and Extended Result Codes" and
"Transactions".
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = [
    "BY_MESSAGE",
    "CODES",
    "DEMOTED",
    "READ_ONLY",
    "SQLITE_MESSAGES",
    "SQLSTATE_CLASSES",
    "STALE",
    "SYMPTOMS",
    "Kind",
    "Row",
    "meaning",
]


class Kind(Enum):
    """What can be done about an error.

    .. versionadded:: 0.1
    """

    RETRY = "retry"
    """A concurrent transaction got in the way: run the whole transaction again now."""
    RETRY_WITH_CARE = "retry with care"
    """A retry may help, but it has cost time or may hide a mistake: opt in to it."""
    RECONNECT = "reconnect"
    """There is no connection, and nothing is stored: try again later on another one."""
    UNKNOWN = "unknown"
    """It may be stored or not: find out before trying again."""
    PRIMARY = "primary"
    """This server or transaction is read-only, or a standby: try the primary."""
    TIMEOUT = "timeout"
    """It took too long, or was cancelled. A retry would double the load."""
    UNAVAILABLE = "unavailable"
    """Connections, memory or disk space are used up: let the client try later."""
    DOOMED = "doomed"
    """The transaction had been aborted before, by an earlier error."""
    NEVER = "never"
    """It would happen again, or it is no error of a database."""


class Row(NamedTuple):
    """What one code means. *disconnects*: the connection has ended with it."""

    kind: Kind
    reason: str
    poisons: bool = False
    disconnects: bool = False


_Table = dict[str | int, Row]

_LOST = Row(Kind.RECONNECT, "the connection is lost", disconnects=True)
_EXHAUSTED = Row(Kind.UNAVAILABLE, "the server has run out of connections or resources")
_TIMED_OUT = Row(
    Kind.TIMEOUT, "a time limit of the database, or an administrator, cancelled it"
)
STALE = Row(Kind.RETRY, "a cached plan is older than the schema")
_STANDBY = Row(Kind.PRIMARY, "the standby had to cancel it to keep up with its primary")
READ_ONLY = Row(Kind.PRIMARY, "the transaction or its server is read-only")
DEMOTED = Row(
    Kind.RECONNECT, "the server is read-only, and its connections were dropped"
)
_CONFLICT = Row(Kind.RETRY, "a concurrent transaction got in the way")
_DEADLOCK = Row(Kind.RETRY, "a deadlock: others hold what it needs, and wait for it")
_LOCKED = Row(Kind.RETRY_WITH_CARE, "a lock was not granted in time")
_CONSTRAINT = Row(Kind.NEVER, "the data violates a constraint")
_ABORTED = Row(Kind.DOOMED, "the transaction had been aborted before this statement")
_ROLLS_BACK = Row(Kind.DOOMED, "the database may have rolled it all back", poisons=True)
_ACCESS = Row(Kind.NEVER, "the database does not admit this user, or does not exist")
_PREPARED = Row(
    Kind.NEVER,
    "a prepared statement is missing or exists already: set transaction_pooler=True if "
    "there is a pooler",
)
_IN_DOUBT = Row(Kind.UNKNOWN, "the server itself does not know whether it is stored")
_CERTIFIED = Row(Kind.RETRY, "a concurrent transaction on another node won", True)

_CONNECTION: _Table = {
    **dict.fromkeys(("08000", "08001", "08003", "08004", "08006"), _LOST),
    "08007": _IN_DOUBT,
}
_POSTGRESQL: _Table = {
    **_CONNECTION,
    "40001": _CONFLICT,
    "40P01": _DEADLOCK,
    "OC000": _CONFLICT,  # Aurora DSQL
    "OC001": Row(Kind.RETRY, "the schema was changed meanwhile"),
    "40003": _IN_DOUBT,
    "40002": _CONSTRAINT,
    "40000": Row(Kind.DOOMED, "the server rolled the transaction back"),
    "55P03": _LOCKED,  # NOWAIT, lock_timeout
    "57014": _TIMED_OUT,  # statement_timeout, pg_cancel_backend()
    "25P02": _ABORTED,
    "25P03": Row(
        Kind.RECONNECT, "the transaction was idle for too long", disconnects=True
    ),
    "25P04": _TIMED_OUT._replace(disconnects=True),  # transaction_timeout
    "25006": READ_ONLY,
    "57P01": Row(Kind.RECONNECT, "the server ended the connection", disconnects=True),
    "57P02": Row(Kind.RECONNECT, "the server crashed", disconnects=True),
    "57P03": Row(
        Kind.RECONNECT, "the server is starting or stopping", disconnects=True
    ),
    "57P04": Row(Kind.NEVER, "the database was dropped", disconnects=True),
    "57P05": Row(Kind.RECONNECT, "the session was idle for too long", disconnects=True),
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "3D000": _ACCESS,
    "28000": _ACCESS,
    "28P01": _ACCESS,
}
_MYSQL: _Table = {
    1213: _DEADLOCK._replace(poisons=True),  # Galera: also at COMMIT, certification
    1020: _CONFLICT._replace(poisons=True),  # MariaDB, innodb_snapshot_isolation
    3101: _CERTIFIED,  # group replication
    1614: _DEADLOCK._replace(poisons=True),  # XA
    1205: _LOCKED,  # mostly, the statement alone was rolled back, so ROLLBACK first
    1206: _EXHAUSTED._replace(poisons=True),  # the lock table
    3572: _LOCKED,  # NOWAIT
    1180: _ROLLS_BACK,  # an error during COMMIT, or at the end of MariaDB's bulk insert
    1047: Row(Kind.RECONNECT, "this node has left its cluster", disconnects=True),
    1040: _EXHAUSTED,
    1203: _EXHAUSTED,
    1226: _EXHAUSTED,
    0: _LOST,  # pymysql: closed already
    **dict.fromkeys((1053, 1927, 2006, 2013, 2014, 2045, 2055, 4031), _LOST),
    **dict.fromkeys((2002, 2003, 2005), _LOST),  # unreachable
    1290: READ_ONLY,
    1792: READ_ONLY,
    1836: READ_ONLY,
    1317: _TIMED_OUT,
    1969: _TIMED_OUT,  # MariaDB, max_statement_time
    3024: _TIMED_OUT,  # max_execution_time
    1062: _CONSTRAINT,
    1048: _CONSTRAINT,
    1451: _CONSTRAINT,
    1452: _CONSTRAINT,
    3819: _CONSTRAINT,
    1044: _ACCESS,
    1045: _ACCESS,
    1049: _ACCESS,
    # TiDB
    8002: _CONFLICT,
    8005: _CONFLICT,
    8022: _CONFLICT,
    8028: Row(Kind.RETRY, "the schema was changed meanwhile"),
    9007: _CONFLICT,
}
_SQLITE: _Table = {
    5: _LOCKED,  # SQLITE_BUSY: busy_timeout is over
    261: Row(Kind.RETRY, "another process recovers the write-ahead log"),
    517: Row(
        Kind.RETRY, "another connection has written since this transaction first read"
    ),
    6: _LOCKED,
    262: _LOCKED,
    8: Row(Kind.NEVER, "the database file can't be written"),
    4: Row(Kind.NEVER, "a callback requested an abort"),
    516: _ABORTED._replace(poisons=True),  # SQLITE_ABORT_ROLLBACK
    7: _ROLLS_BACK,  # SQLITE_NOMEM
    9: Row(Kind.TIMEOUT, "it was interrupted", poisons=True),
    10: _ROLLS_BACK,  # SQLITE_IOERR
    13: Row(Kind.UNAVAILABLE, "the disk is full", poisons=True),
    14: Row(Kind.RECONNECT, "the database file can't be opened"),
    19: _CONSTRAINT,
}
CODES: dict[str | None, _Table] = {
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "sqlite": _SQLITE,
    None: {**_CONNECTION, "40001": _CONFLICT, "40003": _IN_DOUBT},  # the SQL standard's
}
SQLSTATE_CLASSES = {
    "22": Row(Kind.NEVER, "a value is wrong"),
    "23": _CONSTRAINT,
    "42": Row(Kind.NEVER, "the statement is wrong, or not allowed"),
    "53": _EXHAUSTED,
}

BY_MESSAGE: list[tuple[str, str, Row, set[str | int | None]]] = [
    # … does not exist: it ended with its transaction. The same code is for functions.
    ("mysql", "SAVEPOINT ", _ABORTED, {1305}),
    # The write set may have reached the other nodes.
    ("mysql", "Primary Component", _IN_DOUBT, {1180}),
    ("postgresql", "conflict with recovery", _STANDBY, {"40001", "40P01", "57P01"}),
    ("postgresql", "cached plan must not change result type", STALE, {"0A000"}),
    ("postgresql", "RevalidateCachedQuery", STALE, {"0A000"}),
    ("postgresql", "cached statement plan is invalid", STALE, {"0A000", None}),
    ("postgresql", "cache lookup failed for type", STALE, {"XX000"}),
    # libpq gives no SQLSTATE for a refused connection; pgbouncer gives 08P01
    ("postgresql", "too many clients already", _EXHAUSTED, {None}),
    ("postgresql", "remaining connection slots are reserved", _EXHAUSTED, {None}),
    ("postgresql", "password authentication failed", _ACCESS, {None}),
    ("postgresql", "query_wait_timeout", _EXHAUSTED, {"08P01", None}),
]
"""Family, a part of the message or the name of the server's function, row, codes."""

SQLITE_MESSAGES = {
    "database is locked": 5,
    "database table is locked": 6,
    "database schema is locked": 6,
    "out of memory": 7,
    "attempt to write a readonly database": 8,
    "interrupted": 9,
    "disk I/O error": 10,
    "database or disk is full": 13,
    "unable to open database file": 14,
    "constraint failed": 19,
}
"""For errors without their code, such as those pickled in another process."""

SYMPTOMS = {("postgresql", "25P02"), ("mysql", 1305), (None, None)}
"""Consequences of an earlier error, which is reported instead if it is known."""


def meaning(family: str | None, code: str | int | None, text: str = "") -> Row | None:
    """Look *code* up; some codes mean different things, by their message, *text*."""
    for of, part, row, codes in BY_MESSAGE:
        if of == family and code in codes and part in text:
            return row
    table = CODES.get(family, {})
    if code is None:
        return None
    if code in table:
        return table[code]
    if isinstance(code, str):
        return SQLSTATE_CLASSES.get(code[:2])
    return table.get(code & 0xFF) if family == "sqlite" else None
