"""The statements that a test counts, and how a failure lists them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Sent", "listed", "sent_by"]

_CONTROL = re.compile(
    r"\s*(begin|start\s+transaction|commit|end|rollback|savepoint|release|xa\s|"
    r"prepare\s+transaction|set\s+(constraints|transaction|session\s+characteristics))"
    r"\b",
    re.IGNORECASE,
)
_LONGEST = 300


class Sent(NamedTuple):
    """One statement, and with how many sets of parameters it was executed."""

    text: str
    times: int

    def __str__(self) -> str:
        text = self.text if len(self.text) <= _LONGEST else self.text[:_LONGEST] + "..."
        return text if self.times == 1 else f"{text} (with {self.times} parameter sets)"


def sent_by(statement: str, times: int = 1) -> Sent | None:
    """What is counted of *statement*: nothing that only begins or ends a transaction.

    A sandbox replaces that by savepoints, and has to count the same.
    """
    if _CONTROL.match(statement):
        return None
    return Sent(" ".join(statement.split()), times)


def listed(sent: Sequence[object]) -> str:
    """One line for each, with its number."""
    return "".join(f"\n  {number}. {each}" for number, each in enumerate(sent, 1))
