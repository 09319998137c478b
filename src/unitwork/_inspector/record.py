"""What the inspector keeps of one unit of work: no errors, sessions or parameters."""

from __future__ import annotations

from typing import NamedTuple

from .._observing.subjects import CallSite, ConnectionUse, UnitInfo
from ..outcome import Outcome

__all__ = ["MOST_MARKS", "MOST_STATEMENTS", "Mark", "UnitRecord", "name_of"]

MOST_STATEMENTS = 300
"""For each unit; those after that are one mark, up to its next outcome."""
MOST_MARKS = 1_000
"""For each unit: of one that goes on, as a WebSocket's, the older half is dropped."""


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

    def add(self, mark: Mark) -> None:
        """Add *mark*; drop the oldest ones if there are too many."""
        if len(self.marks) >= MOST_MARKS:
            del self.marks[: MOST_MARKS // 2]
        self.marks.append(mark)

    def add_statement(self, mark: Mark) -> None:
        """Add a statement; of those that are too many, one mark stands for several."""
        self.statements += 1
        if self.statements <= MOST_STATEMENTS:
            self.add(mark)
            return
        for position in range(len(self.marks) - 1, -1, -1):
            first = self.marks[position]
            if first.kind == "statements":
                self.marks[position] = _joined(first, mark)
                return
            if first.kind in ("statement", "settled"):
                break
        self.add(mark._replace(kind="statements", text="1 more statement"))

    @property
    def name(self) -> str:
        return name_of(self.info)


def name_of(info: UnitInfo) -> str:
    """What a unit is counted by: never a path, of which there may be any number."""
    if info.kind == "block":
        return "transaction() block"
    return f"{info.method or 'WebSocket'} {info.route or '(no route)'}"


def _joined(first: Mark, last: Mark) -> Mark:
    """The mark of several statements, with one more."""
    count = int(first.text.partition(" ")[0]) + 1
    lasted = last.at - (first.at - first.seconds)
    return first._replace(at=last.at, seconds=lasted, text=f"{count} more statements")
