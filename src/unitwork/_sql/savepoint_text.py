"""What a statement does to a savepoint, by its text. Pure."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from .._patterns import pattern
from .sql_text import without_comments

__all__ = ["SavepointCommand", "SavepointStep", "savepoint_command"]

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


def savepoint_command(dialect: str, text: str) -> SavepointCommand | None:
    """What *text*, a single statement, does; `None` if that is something else."""
    found = _COMMAND.match(without_comments(dialect, text))
    if found is None:
        return None
    name = found[2][1:-1] if found[2][0] in _QUOTES else found[2].lower()
    if dialect != "postgresql":  # others compare quoted names without case, too
        name = name.lower()
    return SavepointCommand(SavepointStep(found[1][:2].lower()), name)
