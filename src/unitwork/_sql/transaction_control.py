"""What a text does to the transaction that it is executed in. Pure, and approximate."""

from __future__ import annotations

import re
from enum import Enum

from .._patterns import pattern
from .sql_text import MYSQL, without_comments, without_strings

__all__ = [
    "End",
    "begins_another",
    "commits",
    "continues_with_another",
    "end_by",
    "may_commit",
    "may_replace",
    "may_store_a_part",
]

_CHAINS = pattern(r"(commit|end|rollback|abort)\b[^;]*\band\s+chain\b", re.IGNORECASE)
_BEGINS = pattern(r"(begin(?!\s+not\b)|start\s+transaction)\b", re.IGNORECASE)
"""Not `BEGIN NOT ATOMIC`, a compound statement of MariaDB."""
_SETS_FOR_STATEMENT = pattern(r"\s*set\s+statement\b", re.IGNORECASE)
_TO_SAVEPOINT = pattern(r"\s*rollback\s+(?:work\s+)?to\b", re.IGNORECASE)
_FIRST_WORD = pattern(r"[\s(]*(\w+)")
_ROLLS_BACK = {"rollback", "abort"}
_COMMIT = {"commit", "end"}
_COMMITS = _COMMIT | {
    *("alter", "analyze", "cache", "change", "check", "create", "drop", "flush"),
    *("grant", "install", "load", "lock", "optimize", "rename", "repair", "reset"),
    *("revoke", "set", "start", "stop", "truncate", "uninstall", "unlock"),
}
"""COMMIT, and what MySQL and MariaDB commit before; nothing that calls a procedure."""
_MAY_COMMIT = _COMMIT | {"prepare"}  # PREPARE TRANSACTION
_STORE_PARTS = _MAY_COMMIT | {"call", "do"}  # of PostgreSQL
_CONCURRENTLY = pattern(r"\bconcurrently\b", re.IGNORECASE)  # which are left invalid
_NEVER_BEGIN = {
    *("delete", "desc", "describe", "do", "explain", "handler", "help", "insert"),
    *("kill", "prepare", "release", "replace", "savepoint", "select", "set", "show"),
    *("table", "update", "use", "values", "with", "xa"),
}
"""What may end a transaction of MySQL, or not, but begins no other one in its place."""


class End(Enum):
    """How a text has ended its transaction."""

    COMMIT = "commit"
    ROLLBACK = "rollback"
    UNCLEAR = "unclear"


def continues_with_another(dialect: str, statement: str) -> bool:
    """Whether *statement* ends its transaction and begins another one at once."""
    return _CHAINS.match(without_comments(dialect, statement).lstrip()) is not None


def begins_another(dialect: str, statement: str) -> bool:
    """Whether *statement* makes MySQL commit what is open, and begin anew."""
    if dialect not in MYSQL:
        return False
    return _BEGINS.match(without_comments(dialect, statement).lstrip()) is not None


def may_replace(dialect: str, statement: str) -> bool:
    """Whether a transaction of MySQL may be another one after *statement*.

    Procedures may end one and begin the next, and so may `completion_type`.
    """
    if dialect not in MYSQL:
        return False
    text = without_strings(without_comments(dialect, statement))
    return any(
        _first_word(each) not in _NEVER_BEGIN or _SETS_FOR_STATEMENT.match(each)
        for each in text.split(";")
        if each.strip() and not _TO_SAVEPOINT.match(each)
    )


def commits(dialect: str, statement: str) -> bool:
    """Whether *statement* is COMMIT, or END, which is the same."""
    return _first_word(without_comments(dialect, statement)) in _COMMIT


def may_commit(dialect: str, statement: str) -> bool:
    """Whether *statement* may have committed what came before it, although it fails.

    MySQL commits before DDL; of several statements a later one may be what fails.
    """
    text = without_strings(without_comments(dialect, statement))
    words = _COMMITS | {"begin"} if dialect in MYSQL else _MAY_COMMIT
    return any(
        _first_word(each) in words and not _SETS_FOR_STATEMENT.match(each)
        for each in text.split(";")
    )


def may_store_a_part(dialect: str, statement: str) -> bool:
    """Whether *statement* may have stored something in AUTOCOMMIT, although it fails.

    A procedure commits by itself; on MySQL each of its statements is committed.
    """
    text = without_strings(without_comments(dialect, statement)).strip("; \t\r\n")
    if dialect in MYSQL:
        return ";" in text or may_replace(dialect, statement)
    words = map(_first_word, text.split(";"))
    return not _STORE_PARTS.isdisjoint(words) or bool(_CONCURRENTLY.search(text))


def end_by(dialect: str, statement: str) -> End:
    """How *statement*, after which its transaction is over, has ended it."""
    text = without_strings(without_comments(dialect, statement)).strip("; \t\r\n")
    word = _first_word(text)
    if not word or ";" in text:  # any of several statements
        return End.UNCLEAR
    if word in _ROLLS_BACK:
        return End.ROLLBACK
    return End.COMMIT if word in _COMMITS else End.UNCLEAR


def _first_word(text: str) -> str:
    """In lower case; empty if *text* begins with anything else."""
    found = _FIRST_WORD.match(text)
    return "" if found is None else found[1].lower()
