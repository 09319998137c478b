"""What the error codes of databases mean: data, and no more.

Sources: PostgreSQL, appendix A "Error Codes", section 13.5 "Serialization Failure
Handling" and `plancache.c`; CockroachDB, "Transaction Retry Error Reference"; Aurora
DSQL, "Concurrency control"; MySQL and MariaDB, "Server Error Message Reference"; TiDB,
"Error Codes and Troubleshooting"; SQLite, "Result and Extended Result Codes" and
"Transactions"; SQL Server, `SqlServerTransientExceptionDetector` of Entity Framework
Core; Oracle, "Database Error Messages", and python-oracledb's `DPY` and `DPI` errors.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = [
    "BY_MESSAGE",
    "CODES",
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
    """Others got in the way: try the whole transaction again, at once."""
    RETRY_WITH_CARE = "retry with care"
    """The same may help, but time was lost on it, or it hides a mistake: ask for it."""
    RECONNECT = "reconnect"
    """No connection, and nothing stored: try again on another one, after a while."""
    UNKNOWN = "unknown"
    """It may be stored or not: look before trying again."""
    PRIMARY = "primary"
    """Not on this server or in this transaction: it only reads, or it is a standby."""
    TIMEOUT = "timeout"
    """It took too long, or was cancelled. Once more would double the load."""
    UNAVAILABLE = "unavailable"
    """Connections, memory or disk space are used up: later, and not from here."""
    DOOMED = "doomed"
    """The transaction had been given up; the reason is an error before this one."""
    NEVER = "never"
    """The same would happen again, or it is no error of a database."""


class Row(NamedTuple):
    """What one code means. *gone*: and with it the connection has ended."""

    kind: Kind
    reason: str
    poisons: bool = False
    gone: bool = False


_Table = dict[str | int, Row]

_LOST = Row(Kind.RECONNECT, "the connection is lost", gone=True)
_FULL = Row(Kind.UNAVAILABLE, "the server has run out of connections or resources")
_LATE = Row(Kind.TIMEOUT, "a time limit of the database, or somebody, cancelled it")
STALE = Row(Kind.RETRY, "a cached plan is older than the schema")
_STANDBY = Row(Kind.PRIMARY, "the standby had to cancel it to keep up with its primary")
_READS = Row(Kind.PRIMARY, "the transaction or its server is read-only")
_RACE = Row(Kind.RETRY, "a concurrent transaction got in the way")
_DEADLOCK = Row(Kind.RETRY, "a deadlock: others hold what it needs, and wait for it")
_LOCKED = Row(Kind.RETRY_WITH_CARE, "a lock was not to be had in time")
_RULE = Row(Kind.NEVER, "the data breaks a rule of the database")
_GIVEN_UP = Row(Kind.DOOMED, "the transaction had been given up before this statement")
_ROLLS_BACK = Row(Kind.DOOMED, "the database may have rolled it all back", poisons=True)
_ACCESS = Row(Kind.NEVER, "the database does not let this user in, or is not there")
_PREPARED = Row(
    Kind.NEVER,
    "a prepared statement is missing or there already: behind a pooler, use none",
)
_IN_DOUBT = Row(Kind.UNKNOWN, "the server itself can't say whether it is stored")
_CERTIFIED = Row(Kind.RETRY, "a concurrent transaction on another node won", True)

_LINE: _Table = {
    **dict.fromkeys(("08000", "08001", "08003", "08004", "08006"), _LOST),
    "08007": _IN_DOUBT,
}
_POSTGRESQL: _Table = {
    **_LINE,
    "40001": _RACE,
    "40P01": _DEADLOCK,
    "OC000": _RACE,  # Aurora DSQL
    "OC001": Row(Kind.RETRY, "the schema was changed meanwhile"),
    "40003": _IN_DOUBT,
    "40002": _RULE,
    "40000": Row(Kind.DOOMED, "the server rolled the transaction back"),
    "55P03": _LOCKED,  # NOWAIT, lock_timeout
    "57014": _LATE,  # statement_timeout, pg_cancel_backend()
    "25P02": _GIVEN_UP,
    "25P03": Row(Kind.RECONNECT, "the transaction lay idle for too long", gone=True),
    "25P04": _LATE._replace(gone=True),  # transaction_timeout
    "25006": _READS,
    "57P01": Row(Kind.RECONNECT, "the server ended the connection", gone=True),
    "57P02": Row(Kind.RECONNECT, "the server crashed", gone=True),
    "57P03": Row(Kind.RECONNECT, "the server is starting or stopping", gone=True),
    "57P04": Row(Kind.NEVER, "the database was dropped", gone=True),
    "57P05": Row(Kind.RECONNECT, "the session lay idle for too long", gone=True),
    "26000": _PREPARED,
    "42P05": _PREPARED,
    "3D000": _ACCESS,
    "28000": _ACCESS,
    "28P01": _ACCESS,
}
_MYSQL: _Table = {
    1213: _DEADLOCK._replace(poisons=True),  # Galera: also at COMMIT, certification
    1020: _RACE._replace(poisons=True),  # MariaDB, innodb_snapshot_isolation
    3101: _CERTIFIED,  # group replication
    1614: _DEADLOCK._replace(poisons=True),  # XA
    1205: _LOCKED,  # mostly, the statement alone was rolled back, so ROLLBACK first
    1206: _FULL._replace(poisons=True),  # the lock table
    3572: _LOCKED,  # NOWAIT
    1180: _ROLLS_BACK,  # an error during COMMIT, or at the end of MariaDB's bulk insert
    1047: Row(Kind.RECONNECT, "this node has left its cluster", gone=True),
    1040: _FULL,
    1203: _FULL,
    1226: _FULL,
    0: _LOST,  # pymysql: closed already
    **dict.fromkeys((1053, 1927, 2006, 2013, 2014, 2045, 2055, 4031), _LOST),
    **dict.fromkeys((2002, 2003, 2005), _LOST),  # not to be reached
    1290: _READS,
    1792: _READS,
    1836: _READS,
    1317: _LATE,
    1969: _LATE,  # MariaDB, max_statement_time
    3024: _LATE,  # max_execution_time
    1062: _RULE,
    1048: _RULE,
    1451: _RULE,
    1452: _RULE,
    3819: _RULE,
    1044: _ACCESS,
    1045: _ACCESS,
    1049: _ACCESS,
    # TiDB
    8002: _RACE,
    8005: _RACE,
    8022: _RACE,
    8028: Row(Kind.RETRY, "the schema was changed meanwhile"),
    9007: _RACE,
}
_SQLITE: _Table = {
    5: _LOCKED,  # SQLITE_BUSY: busy_timeout is over
    261: Row(Kind.RETRY, "another process recovers the write-ahead log"),
    517: Row(Kind.RETRY, "somebody has written since this transaction first read"),
    6: _LOCKED,
    262: _LOCKED,
    8: Row(Kind.NEVER, "the database file can't be written"),
    4: Row(Kind.NEVER, "a callback asked for an end"),
    516: _GIVEN_UP._replace(poisons=True),  # SQLITE_ABORT_ROLLBACK
    7: _ROLLS_BACK,  # SQLITE_NOMEM
    9: Row(Kind.TIMEOUT, "it was interrupted", poisons=True),
    10: _ROLLS_BACK,  # SQLITE_IOERR
    13: Row(Kind.UNAVAILABLE, "the disk is full", poisons=True),
    14: Row(Kind.RECONNECT, "the database file can't be opened"),
    19: _RULE,
}
_MSSQL: _Table = {
    1205: _DEADLOCK._replace(poisons=True),
    **dict.fromkeys((3935, 3941, 3948, 3957, 3960, 3966), _RACE._replace(poisons=True)),
    # In-memory tables
    **dict.fromkeys((41301, 41302, 41305, 41325, 41839), _RACE._replace(poisons=True)),
    1222: _LOCKED,
    1204: Row(Kind.RETRY_WITH_CARE, "the server has run out of locks"),
    # Azure
    **dict.fromkeys((10928, 10929, 40501, 49918, 49919, 49920), _FULL),
    **dict.fromkeys((40143, 40197, 40540, 40613, 4060, 4221), _LOST),
    **dict.fromkeys((233, 64, 20, 121, 10053, 10054, 10060, 997, 11001), _LOST),
    -2: _LATE._replace(gone=True),
    2601: _RULE,
    2627: _RULE,
    547: _RULE,
    3906: _READS,
    18456: _ACCESS,
    # SQLSTATEs, which pyodbc has always, while the number is only in its message
    **_LINE,
    "40001": _RACE._replace(poisons=True),
    "HYT00": _LATE._replace(gone=True),
    "HYT01": _LATE._replace(gone=True),
    "08S01": _LOST,
    "08S02": _LOST,
}
_ORACLE: _Table = {
    "ORA-08177": _RACE,
    "ORA-00060": _DEADLOCK,  # the statement alone was rolled back, so ROLLBACK first
    "ORA-00054": _LOCKED,
    "ORA-30006": _LOCKED,
    **dict.fromkeys(("ORA-00028", "ORA-01033", "ORA-02396"), _LOST),
    **dict.fromkeys(("ORA-03113", "ORA-03114", "ORA-03135"), _LOST),
    **dict.fromkeys(("DPI-1010", "DPI-1080", "DPY-1001", "DPY-4011"), _LOST),
    "ORA-01013": _LATE,
    "ORA-01456": _READS,
    "ORA-16000": _READS,
    "ORA-00001": _RULE,
    "ORA-01017": _ACCESS,
}

CODES: dict[str | None, _Table] = {
    "postgresql": _POSTGRESQL,
    "mysql": _MYSQL,
    "sqlite": _SQLITE,
    "mssql": _MSSQL,
    "oracle": _ORACLE,
    None: {**_LINE, "40001": _RACE, "40003": _IN_DOUBT},  # the SQL standard's
}
SQLSTATE_CLASSES = {
    "22": Row(Kind.NEVER, "a value is wrong"),
    "23": _RULE,
    "42": Row(Kind.NEVER, "the statement is wrong, or not allowed"),
    "53": _FULL,
}

BY_MESSAGE: list[tuple[str, str, Row, set[str | int | None]]] = [
    # … does not exist: it went with its transaction. Functions don't exist either.
    ("mysql", "SAVEPOINT ", _GIVEN_UP, {1305}),
    ("postgresql", "conflict with recovery", _STANDBY, {"40001", "40P01", "57P01"}),
    ("postgresql", "cached plan must not change result type", STALE, {"0A000"}),
    ("postgresql", "RevalidateCachedQuery", STALE, {"0A000"}),
    ("postgresql", "cached statement plan is invalid", STALE, {"0A000", None}),
    ("postgresql", "cache lookup failed for type", STALE, {"XX000"}),
    # libpq says no SQLSTATE of a connection that was refused; pgbouncer says 08P01
    ("postgresql", "too many clients already", _FULL, {None}),
    ("postgresql", "remaining connection slots are reserved", _FULL, {None}),
    ("postgresql", "password authentication failed", _ACCESS, {None}),
    ("postgresql", "query_wait_timeout", _FULL, {"08P01", None}),
]
"""Family, a part of the message or the name of the server's function, and the codes."""

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
"""For errors that have lost their code on the way, as in another process."""

SYMPTOMS = {("postgresql", "25P02"), ("mysql", 1305), (None, None)}
"""What only follows from an earlier error, which tells more if it is still there."""


def meaning(family: str | None, code: str | int | None, text: str = "") -> Row | None:
    """Look *code* up; *text* is the message, which some codes need."""
    for of, part, row, codes in BY_MESSAGE:
        if of == family and code in codes and part in text:
            return row
    table = CODES.get(family, {})
    if code is None:
        return None
    if code in table:
        return table[code]
    if isinstance(code, str):
        return SQLSTATE_CLASSES.get(code[:2]) if family != "oracle" else None
    return table.get(code & 0xFF) if family == "sqlite" else None
