"""SQL text without its comments, without its strings, or shortened. Approximate."""

from __future__ import annotations

import re

from .._patterns import pattern

__all__ = [
    "MYSQL",
    "has_several_statements",
    "shortened",
    "without_comments",
    "without_strings",
]

MYSQL = ("mysql", "mariadb")
"""The dialects whose SQL is MySQL's."""
_MOST_SHOWN = 200

_LINE_COMMENT = pattern(r"('(?:[^']|'')*'|\"[^\"]*\")|--[^\n]*")
_HASH_COMMENT = pattern(r"('(?:[^']|'')*'|\"[^\"]*\")|#[^\n]*")
_BLOCK_COMMENT = pattern(r"/\*(?:(?!/\*|\*/).)*\*/", re.DOTALL)  # an innermost one
_FLAT_COMMENT = pattern(r"/\*.*?\*/", re.DOTALL)
_EXECUTED = pattern(r"/\*M?!\d*")
_STRING = pattern(r"'(?:[^']|'')*'|(\$\w*\$).*?\1", re.DOTALL)


def without_comments(dialect: str, text: str) -> str:
    """*text*, with spaces in place of its comments."""
    is_mysql = dialect in MYSQL
    if is_mysql:
        text = _EXECUTED.sub(" ", text)  # MySQL executes what is in these
        text = _HASH_COMMENT.sub(r"\1 ", text) if "#" in text else text
    if "--" in text:
        text = _LINE_COMMENT.sub(r"\1 ", text)
    if "/*" not in text:
        return text
    if is_mysql:  # whose comments are not nested
        return _FLAT_COMMENT.sub(" ", text)
    while (shorter := _BLOCK_COMMENT.sub(" ", text)) != text:
        text = shorter
    return text


def without_strings(text: str) -> str:
    """*text*, with empty strings in place of its strings."""
    return _STRING.sub("''", text)


def has_several_statements(text: str) -> bool:
    return ";" in without_strings(text).rstrip("; \n")


def shortened(statement: str) -> str:
    """*statement* on one line, for a message; no more than its first 200 characters."""
    line = " ".join(statement.split())
    return line[:_MOST_SHOWN] + "..." if len(line) > _MOST_SHOWN else line
