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
_NUMBER = r"|(?<![\w$:.%])(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w])"
_STANDARD = re.compile(_COMMENT.format(hash="") + _NAME + _STRING + _NUMBER, re.DOTALL)
_MYSQL = re.compile(_COMMENT.format(hash=r"|\#[^\n]*") + _QUOTED + _NUMBER, re.DOTALL)


@lru_cache(maxsize=512)
def shown(statement: str, *, is_mysql: bool = False) -> str:
    """*statement* on one line, with `?` in place of each value that is written in it.

    Its parameters are never known here. Comments are left out. In MySQL's text a value
    may stand in double quotes, where others have names.
    """
    if not statement:
        return ""
    text = (_MYSQL if is_mysql else _STANDARD).sub(_replaced, statement)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _replaced(found: re.Match[str]) -> str:
    if found["comment"] is not None:
        return " "
    return found["name"] or "?"
