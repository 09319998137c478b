"""The text of a statement as the inspector shows it: without values. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["shown"]

_LONGEST = 1000
_COMMENT = r"(?P<comment>/\*.*?(?:\*/|\Z)|--[^\n]*{hash})"
_NAME = r"|(?P<name>\"[^\"]*\"|`[^`]*`)"
_ESCAPED = r"'(?:[^'\\]|''|\\.)*(?:'|\Z)"
_STRING = (
    r"|\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"
    rf"|(?<!\w)[eE]{_ESCAPED}|[nNbBxX]?'(?:[^']|'')*(?:'|\Z)"
)
_QUOTED = rf"|[nNbBxX]?{_ESCAPED}" r'|"(?:[^"\\]|""|\\.)*(?:"|\Z)|(?P<name>`[^`]*`)'
_NAME_OR_STRING = r"|\"(?:[^\"]|\"\")*(?:\"|\Z)|(?P<name>`[^`]*`)"
_DECIMAL = r"(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)?"
_NUMBER = rf"|(?<![\w$:.%])(?:0[xX][\da-fA-F_]+|0[bBoO][0-7_]+|{_DECIMAL})(?!\w)"
_STANDARD = re.compile(_COMMENT.format(hash="") + _NAME + _STRING + _NUMBER, re.DOTALL)
_MYSQL = re.compile(_COMMENT.format(hash=r"|\#[^\n]*") + _QUOTED + _NUMBER, re.DOTALL)
_SQLITE = re.compile(
    _COMMENT.format(hash="") + _NAME_OR_STRING + _STRING + _NUMBER, re.DOTALL
)
_OF_DIALECT = {"mysql": _MYSQL, "mariadb": _MYSQL, "sqlite": _SQLITE}


@lru_cache(maxsize=512)
def shown(statement: str, dialect: str = "") -> str:
    """*statement* on one line, with `?` in place of each value that is written in it.

    Its parameters are never known here. Comments are left out. What stands in double
    quotes is a value in MySQL's text, may be one in SQLite's, and is a name in others.
    """
    if not statement:
        return ""
    text = _OF_DIALECT.get(dialect, _STANDARD).sub(_replaced, statement)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _replaced(found: re.Match[str]) -> str:
    if found["comment"] is not None:
        return " "
    return found["name"] or "?"
