"""Whether a statement may have changed data."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["statement_writes"]

_MAY_WRITE = {"with", "explain"}
_WRITING = re.compile(
    r"\b(insert\s+into|delete\s+from|merge\s+into|update\b.{1,200}?\bset)\b",
    re.IGNORECASE | re.DOTALL,
)
_READING = {"select", "values", "table", "show", "set"} | {
    "savepoint",
    "release",
    "rollback",
    "begin",
    "xa",
}


def statement_writes(context: Any, statement: str) -> bool:
    """Whether a statement may have changed data, by its SQLAlchemy construct.

    SQL text is judged by its first word, so a function that writes is not noticed.
    """
    compiled = context.compiled
    if compiled is None or context.is_text:
        first = statement.split(None, 1)[0].lower() if statement else "select"
        if first in _MAY_WRITE:
            return _WRITING.search(statement) is not None
        return first not in _READING
    if context.isinsert or context.isupdate or context.isdelete or context.isddl:
        return True
    ctes = getattr(compiled, "ctes", None)
    return ctes is not None and any(cte.element.is_dml for cte in ctes)
