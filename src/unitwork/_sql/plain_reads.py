"""Which statements may be executed outside of a transaction: they only read. Pure.

Such a statement leaves nothing behind that a transaction would have kept or undone: no
rows, no locks, no settings. What is not known to be of that kind is not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from .._driver.sqlalchemy_internals import locks_rows
from .._patterns import pattern
from .sql_text import without_comments, without_strings
from .write_detection import functions_called, known_to_write

__all__ = ["ONLY_READS", "is_plain_read"]

ONLY_READS = "unitwork_only_reads"
"""The execution option by which the application says it of SQL text, or functions."""

_BEGINS = pattern(r"[\s(]*(?:select|with|values|table|show|explain)\b", re.I)
_CALL_IN_SCHEMA = pattern(r"\.\s*(?:[\w$]+|\"[^\"]+\"|`[^`]+`)\s*\(")
_QUOTED = pattern(r"\"(?:[^\"]|\"\")*\"|`[^`]*`")
_HIDES = pattern(r"--|/\*|\\")
"""A comment, or an escape in a string: where a string ends is not certain then."""
_KEEPS = pattern(
    r"(?<![.\w])(?:for\s+(?:no\s+key\s+)?(?:key\s+)?(?:update|share)|in\s+share\s+mode|"
    r"into|insert|update|delete|merge|replace\s+into|call|do|lock|analyze|"
    r"next\s+value|procedure|sql_calc_found_rows)\b|"
    r"\b\w*(?:advisory_\w*lock|get_lock|nextval|setval|set_config)\b|:=|;",
    re.IGNORECASE,
)
"""What writes, locks, or leaves something on the connection."""
_LONG = 4000  # such a text is not kept


def is_plain_read(context: Any, statement: str) -> bool:
    """Whether *statement* is a SELECT of SQLAlchemy's that leaves nothing behind.

    It calls no functions but those that only compute. Text, and a SELECT with other
    functions, is one if the application has set `ONLY_READS`, unless it obviously does
    more. A server-side cursor needs a transaction.
    """
    options, compiled = context.execution_options, context.compiled
    if options and (options.get("stream_results") or options.get("yield_per")):
        return False
    if compiled is None or context.executemany or known_to_write(context, statement):
        return False
    if options and options.get(ONLY_READS) is True:
        return _only_reads(context.dialect.name, statement)
    found = compiled.statement
    if not getattr(found, "is_select", False) or found.is_text:
        return False
    if found.is_from_statement or locks_rows(found):
        return False  # SQLite has no FOR UPDATE, but its transactions lock
    if statement != context.statement:  # a listener has changed it
        return _is_plain(without_comments(context.dialect.name, statement))
    text = compiled.string
    return (_is_plain if len(text) > _LONG else _known_plain)(text)


def _only_reads(dialect: str, text: str) -> bool:
    bare = _QUOTED.sub("x", without_strings(without_comments(dialect, text)))
    return _BEGINS.match(bare) is not None and _KEEPS.search(bare) is None


def _is_plain(text: str) -> bool:
    """Whether *text*, which SQLAlchemy has made, only reads."""
    if _HIDES.search(text):
        return False
    bare = without_strings(text)
    if functions_called(bare) or _CALL_IN_SCHEMA.search(bare):
        return False
    bare = _QUOTED.sub("x", bare)
    return _BEGINS.match(bare) is not None and _KEEPS.search(bare) is None


_known_plain = lru_cache(maxsize=512)(_is_plain)
