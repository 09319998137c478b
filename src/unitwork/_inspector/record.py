"""What the inspector keeps of one unit of work: no errors, sessions or parameters."""

from __future__ import annotations

from typing import NamedTuple

from .._observing.subjects import CallSite, ConnectionUse, UnitInfo
from ..outcome import Outcome

__all__ = ["MOST_STATEMENTS", "Mark", "UnitRecord", "name_of"]

MOST_STATEMENTS = 300
"""For each unit; those after that are one mark."""


class Mark(NamedTuple):
    """Something that has happened *at* a time, after *seconds* of its own."""

    at: float
    kind: str
    seconds: float = 0.0
    database: str = ""
    text: str = ""
    call_site: CallSite | None = None
    failed: bool = False


class UnitRecord:
    """One unit, from its first event on. Written by whichever thread it happens in."""

    __slots__ = (
        "ended_at",
        "info",
        "is_retried",
        "marks",
        "outcome",
        "reason",
        "sqlstate",
        "statements",
        "status",
        "use",
        "version",
    )

    def __init__(self, info: UnitInfo) -> None:
        self.info = info
        self.marks: list[Mark] = []
        self.outcome: Outcome | None = None
        self.reason = ""
        self.sqlstate: str | None = None
        self.status: int | None = None
        self.use = ConnectionUse()
        self.ended_at: float | None = None
        self.is_retried = False
        """Whether another attempt has followed."""
        self.statements = 0
        self.version = 0
        """Which of all events was its last one."""

    def add_statement(self, mark: Mark) -> None:
        """Add a statement; the last mark stands for all that are too many."""
        self.statements += 1
        if self.statements <= MOST_STATEMENTS:
            self.marks.append(mark)
            return
        rest = self.statements - MOST_STATEMENTS
        for position in range(len(self.marks) - 1, -1, -1):
            first = self.marks[position]
            if first.kind == "statements":
                since = first.at - first.seconds
                text = f"{rest} more statements"
                self.marks[position] = first._replace(
                    at=mark.at, seconds=mark.at - since, text=text
                )
                return
            if first.kind == "statement":
                break
        self.marks.append(mark._replace(kind="statements", text="1 more statement"))

    @property
    def name(self) -> str:
        return name_of(self.info)


def name_of(info: UnitInfo) -> str:
    """What a unit is counted by: never a path, of which there may be any number."""
    if info.kind == "block":
        return "transaction() block"
    return f"{info.method or 'WebSocket'} {info.route or '(no route)'}"
