"""What a statement does to a savepoint, by its text. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from .._patterns import pattern
from .sql_text import has_several_statements, without_comments, without_strings

__all__ = ["SavepointCommand", "SavepointStep", "savepoint_commands"]

_COMMAND = pattern(
    r"\s*(savepoint|release(?:\s+savepoint)?"
    r"|rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)"
    r"\s+(\"[^\"]+\"|`[^`]+`|'[^']+'|\[[^\]]+\]|[\w$]+)\s*;?\s*$",
    re.IGNORECASE,
)
_QUOTES = "\"`'["


class SavepointStep(Enum):
    """What is done to it, by the first letters of the statement."""

    BEGIN = "sa"
    RELEASE = "re"
    ROLL_BACK = "ro"


class SavepointCommand(NamedTuple):
    """One statement, and the name of its savepoint."""

    step: SavepointStep
    name: str


def savepoint_commands(dialect: str, text: str) -> tuple[SavepointCommand, ...]:
    """What *text*, one statement or several, does to savepoints."""
    text = without_comments(dialect, text)
    several = has_several_statements(text)
    parts = without_strings(text).split(";") if several else [text]
    found = (_command(dialect, part) for part in parts)
    return tuple(each for each in found if each is not None)


def _command(dialect: str, statement: str) -> SavepointCommand | None:
    found = _COMMAND.match(statement)
    if found is None:
        return None
    name = found[2][1:-1] if found[2][0] in _QUOTES else found[2].lower()
    if dialect != "postgresql":  # others compare quoted names without case, too
        name = name.lower()
    return SavepointCommand(SavepointStep(found[1][:2].lower()), name)
