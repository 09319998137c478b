"""The statements that a test counts, and how a failure lists them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .._sql.sql_text import shortened

__all__ = ["ExecutedStatement", "counted", "listed"]

_CONTROL = re.compile(
    r"\s*(begin|start\s+transaction|commit|end|rollback|savepoint|release|xa\s|"
    r"prepare\s+transaction|set\s+(constraints|transaction|session\s+characteristics))"
    r"\b",
    re.IGNORECASE,
)


class ExecutedStatement(NamedTuple):
    """One statement, and with how many sets of parameters it was executed."""

    text: str
    times: int

    def __str__(self) -> str:
        text = shortened(self.text)
        return text if self.times == 1 else f"{text} (with {self.times} parameter sets)"


def counted(statement: str, times: int = 1) -> ExecutedStatement | None:
    """What is counted of *statement*: nothing that only begins or ends a transaction.

    A sandbox replaces that by savepoints, and has to count the same.
    """
    if _CONTROL.match(statement):
        return None
    return ExecutedStatement(" ".join(statement.split()), times)


def listed(lines: Sequence[object]) -> str:
    """One line for each, with its number."""
    return "".join(f"\n  {number}. {each}" for number, each in enumerate(lines, 1))
