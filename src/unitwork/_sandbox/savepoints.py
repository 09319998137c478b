"""The statements by which a unit in a sandbox begins, commits and rolls back.

What a COMMIT does beyond the RELEASE of a savepoint has to be done by hand: deferred
constraints are checked, and settings of the transaction end. Pure.

Sources: PostgreSQL, "SET CONSTRAINTS", "SET" and "RESET"; SQLite, "SAVEPOINT" and
"PRAGMA foreign_key_check"; MariaDB, "SAVEPOINT".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = [
    "CONSTRAINTS",
    "SETTINGS",
    "begins_by_text",
    "changes_settings",
    "commit_of",
    "deferred_in",
    "dropped_on_commit",
    "is_definition",
    "is_in_failed_transaction",
    "is_missing",
    "release_of",
    "restored",
    "rollback_of",
    "savepoint_in",
    "sets_constraints",
    "with_unique_names",
]

CONSTRAINTS = """
SELECT count(*) || ':' || encode(convert_to(coalesce(string_agg(
  connamespace::regnamespace || '.' || quote_ident(conname), ', '
) FILTER (WHERE condeferred), ''), 'UTF8'), 'hex')
FROM pg_constraint WHERE condeferrable
"""
"""How many can be checked at COMMIT, and those that are: see `deferred_in()`."""

SETTINGS = """
SELECT name, setting FROM pg_settings WHERE source = 'session'
AND context IN ('user', 'superuser') AND name NOT LIKE 'transaction\\_%'
UNION ALL SELECT 'role', current_setting('role')
"""
"""What is not as it was when the connection was opened."""

_IN_FAILED_TRANSACTION = "25P02"
_BEGIN = re.compile(r"\s*begin\b", re.IGNORECASE)
_SETTING = re.compile(r"\bset_config\s*\(|(?:^|;)\s*(?:re)?set\b", re.IGNORECASE)
_SET_CONSTRAINTS = re.compile(r"\bset\s+constraints\b", re.IGNORECASE)
_DEFINITION = re.compile(r"\b(?:create|alter|drop)\b", re.IGNORECASE)
_DROPPED_ON_COMMIT = re.compile(
    r"\bcreate\s+(?:local\s+|global\s+)?temp(?:orary)?\s+table\s+"
    r"(?:if\s+not\s+exists\s+)?(?:pg_temp\s*\.\s*)?(\"(?:[^\"]|\"\")+\"|[\w$]+)"
    r".*\bon\s+commit\s+drop\b",
    re.IGNORECASE | re.DOTALL,
)
_MISSING = re.compile(
    r"savepoint.*does not exist|no such savepoint|can only be used in transaction",
    re.IGNORECASE | re.DOTALL,
)
_SAVEPOINT = re.compile(
    r"\s*(rollback\s+to\s+(?:savepoint\s+)?|release\s+(?:savepoint\s+)?|savepoint\s+)"
    r"[`\"]?(\w+)",
    re.IGNORECASE,
)


def commit_of(
    savepoint: str, constraints: str | None, dropped: Sequence[str] = ()
) -> Sequence[str]:
    """Check deferred *constraints*, if there are any (not `None`), and release.

    The temporary tables *dropped* are dropped between the two.
    """
    drops = [f"DROP TABLE IF EXISTS pg_temp.{table}" for table in dropped]
    ends = [*drops, release_of(savepoint)]
    if constraints is None:
        return ends
    check = "SET CONSTRAINTS ALL IMMEDIATE"
    if not constraints:
        return [check, *ends]
    return [check, *ends, f"SET CONSTRAINTS {constraints} DEFERRED"]


def deferred_in(found: str) -> str | None:
    """The deferred constraints in the value of `CONSTRAINTS`; `None`: none can be.

    It is encoded, as drivers give text in a reply to BEGIN as it is, or escaped.
    """
    count, _, names = found.partition(":")
    return bytes.fromhex(names).decode() if int(count) else None


def release_of(savepoint: str) -> str:
    return f"RELEASE SAVEPOINT {savepoint}"


def rollback_of(savepoint: str) -> Sequence[str]:
    return [f"ROLLBACK TO SAVEPOINT {savepoint}", release_of(savepoint)]


def restored(settings: Sequence[tuple[str, str]]) -> Sequence[str]:
    """Set what `SETTINGS` has returned, and reset everything else."""
    quoted = (
        f"set_config({_quote(name)}, {_quote(value)}, true)" for name, value in settings
    )
    return ["RESET ALL", "SELECT " + ", ".join(quoted)]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def is_missing(error: BaseException) -> bool:
    """Whether *error* says that a savepoint, or its transaction, is not there."""
    return _MISSING.search(str(error)) is not None


def is_in_failed_transaction(error: BaseException) -> bool:
    """Whether *error* follows another one, which has failed the transaction."""
    return getattr(error, "sqlstate", None) == _IN_FAILED_TRANSACTION


def begins_by_text(statement: str) -> bool:
    return _BEGIN.match(statement) is not None


def changes_settings(statement: str) -> bool:
    return _SETTING.search(statement) is not None


def sets_constraints(statement: str) -> bool:
    return _SET_CONSTRAINTS.search(statement) is not None


def dropped_on_commit(statement: str) -> str | None:
    """The temporary table that *statement* creates until COMMIT, as it is written."""
    found = _DROPPED_ON_COMMIT.search(statement)
    return None if found is None else found[1]


def is_definition(statement: str) -> bool:
    return _DEFINITION.search(statement) is not None


def with_unique_names(statement: str, prefix: str) -> str:
    """Rename SQLAlchemy's savepoints: MariaDB has each name only once."""
    if _SAVEPOINT.match(statement) is None:
        return statement
    return statement.replace("sa_savepoint", f"{prefix}_savepoint")


def savepoint_in(statement: str) -> tuple[str, str] | None:
    """The verb and the name of a statement about a savepoint."""
    found = _SAVEPOINT.match(statement)
    return None if found is None else (found[1].split()[0].lower(), found[2])
