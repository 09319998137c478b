"""Whether the connection of a transaction may be released before the unit has ended.

It may if the transaction has only read, at an isolation level that gives each statement
a snapshot of its own, and holds nothing that ends with it: locks, settings, cursors.
PostgreSQL is queried for that. The others can't tell all of it; there the texts of the
statements decide, and what is not known to be harmless is refused.

Sources: PostgreSQL, "Transaction Isolation", "Explicit Locking", `pg_cursors` and
`pg_proc`; MariaDB, "SET TRANSACTION" and "LOCK IN SHARE MODE"; SQLite, "Isolation In
SQLite".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .._patterns import pattern
from .._sql.sql_text import MYSQL, shortened, without_comments, without_strings
from .._sql.write_detection import functions_called
from .session_reset import has_traces
from .statement_effects import MOST_TEXTS
from .write_evidence import LOCKS_TO_WRITE, WRITTEN, has_written

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from .loan import Loan

__all__ = ["find_obstacle"]

_HARMLESS = {
    *("select", "with", "values", "table", "show", "explain"),
    *("savepoint", "release", "rollback"),
}
"""How statements begin that leave nothing behind but what the database can tell."""
_FIRST_WORD = pattern(r"[\s(;]*(\w+)")
_READS_PRAGMA = pattern(r"pragma\s+[\w.]+\s*;?", re.IGNORECASE)
_LOCKS = pattern(
    r"\bfor\s+(?:no\s+key\s+)?(?:key\s+)?(?:update|share)\b|"
    r"\block\s+in\s+share\s+mode\b|\badvisory_\w*lock",
    re.IGNORECASE,
)
_NOT_QUOTABLE = pattern(r"['%\\]")
"""What a driver, or PostgreSQL, may read as something else in a name."""
_LEVELS = ("READ COMMITTED", "READ UNCOMMITTED")
# OFFSET 0: pg_get_viewdef() locks each view that it is called for.
_POSTGRESQL = """
SELECT upper(current_setting('transaction_isolation')), {written},
EXISTS (SELECT 1 FROM pg_locks WHERE pid = pg_backend_pid() AND granted
  AND (locktype = 'advisory' OR mode = 'RowShareLock')),
EXISTS (SELECT 1 FROM pg_cursors WHERE name <> ''),
(SELECT min(proname) FROM pg_proc WHERE proname IN ({names})
  AND (provolatile = 'v' OR strpos(lower(prosrc), 'set_config') > 0)
  AND pronamespace <> CAST('pg_catalog' AS regnamespace)),
(SELECT min(relname) FROM (
  SELECT pg_class.oid, relname
  FROM pg_locks JOIN pg_class ON pg_class.oid = pg_locks.relation
  WHERE pid = pg_backend_pid() AND relkind = 'v'
  AND relnamespace <> CAST('pg_catalog' AS regnamespace) OFFSET 0) AS view
  WHERE strpos(pg_get_viewdef(view.oid), 'set_config') > 0)
"""


def find_obstacle(connection: Connection, loan: Loan, level: str | None) -> str | None:
    """Why *connection* must not be released; `None` if it may.

    *level* is the isolation level that the transaction was given. One round trip, on
    PostgreSQL and MariaDB. Raises the database's error if that fails.
    """
    if loan.failure is not None or loan.is_lost:
        return "an error in it was swallowed, which may have lost its work"
    if loan.is_streaming:
        return f"a server-side cursor is open{_shown(_last(loan))}"
    if loan.may_have_written:
        return f"it has written{_shown(_last(loan))}"
    if loan.has_ended or loan.was_bypassed:
        return (
            "what it has done is not known: it has read from a server-side cursor, or "
            "sent statements through the driver, or several at once"
        )
    if has_traces(connection):
        return f"settings or locks were left on its connection{_shown(_last(loan))}"
    dialect = connection.dialect.name
    if len(loan.texts) >= MOST_TEXTS:
        return f"it has executed {MOST_TEXTS} different statements or more"
    bare = {text: _bare(dialect, text) for text in loan.texts}
    for text, stripped in bare.items():
        if not _is_harmless(stripped):
            return f"it is not known what ends with the transaction{_shown(text)}"
    if loan.client_side_read_only:
        return None
    if dialect == "postgresql":
        return _ask_postgresql(connection, bare)
    if dialect in MYSQL:
        return _in_mysql(connection, loan, level, bare)
    if dialect != "sqlite":
        return f"what it has done can't be found out on {dialect}"
    return None if level is None else _isolation(level)


def _is_harmless(bare: str) -> bool:
    if 'u&"' in bare.lower():  # a name in escapes may be that of any function
        return False
    word = _FIRST_WORD.match(bare)
    if word is not None and word[1].lower() in _HARMLESS:
        return True
    return _READS_PRAGMA.fullmatch(bare.strip()) is not None


def _ask_postgresql(connection: Connection, texts: dict[str, str]) -> str | None:
    called = set().union(*map(functions_called, texts.values()))
    if "set_config" in called:
        text = _first(texts, lambda bare: "set_config" in functions_called(bare))
        return f"it has settings that end with it{_shown(text)}"
    odd = next(filter(_NOT_QUOTABLE.search, called), None)
    if odd is not None:
        return f"it is not known what the function {odd!r} does"
    names = ", ".join(f"'{name}'" for name in sorted(called)) or "''"
    # Only a function can change the catalogs, where DDL on this connection some seconds
    # ago may still be counted.
    query = _POSTGRESQL.format(
        written=WRITTEN if called else LOCKS_TO_WRITE, names=names
    )
    row = connection.exec_driver_sql(query).one()
    level, written, locked, cursor, function, view = row
    if written:
        return f"it has written{_shown(_first(texts, functions_called))}"
    if locked:
        return f"it holds locks{_shown(_first(texts, _LOCKS.search))}"
    if cursor:
        return "a cursor is open"
    if function is not None:
        text = _first(texts, lambda bare: function in functions_called(bare))
        return f"{function}() may have made settings that end with it{_shown(text)}"
    if view is not None:
        return f"the view {view} makes settings that end with it"
    return None if level in _LEVELS else _isolation(level)


def _in_mysql(
    connection: Connection, loan: Loan, level: str | None, texts: dict[str, str]
) -> str | None:
    for text, bare in texts.items():
        if _LOCKS.search(bare):
            return f"it holds locks{_shown(text)}"
    if has_written(connection, loan):
        return f"it may have written{_shown(_first(texts, functions_called))}"
    if level is None:
        loan.begin_statement()
        try:
            pooled = connection.connection.dbapi_connection
            level = connection.dialect.get_isolation_level(pooled)  # type: ignore[arg-type]  # it is open
        finally:
            loan.end_statement()
    return None if level in _LEVELS else _isolation(level)


def _isolation(level: str) -> str:
    return (
        f"its isolation level is {level}: what it has read would not be the same "
        "afterwards, as READ COMMITTED allows"
    )


def _bare(dialect: str, text: str) -> str:
    return without_strings(without_comments(dialect, text))


def _first(texts: dict[str, str], matches: Callable[[str], object]) -> str:
    """The first text that *matches*; the last one, if none does."""
    found = (text for text, bare in texts.items() if matches(bare))
    return next(found, next(reversed(texts), ""))


def _last(loan: Loan) -> str:
    return next(reversed(loan.texts), "")


def _shown(text: str) -> str:
    """A statement as an addition to a message, without its parameters."""
    line = shortened(text)
    return f" ({line})" if line else ""
