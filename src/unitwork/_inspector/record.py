"""What the inspector keeps of one unit of work: no errors, sessions or parameters."""

from __future__ import annotations

from .._observing.event import Event
from .._observing.subjects import ConnectionUse, UnitInfo
from .._observing.unit_events import StatementExecuted
from ..outcome import Outcome
from .marks import TimelineMark, mark_of

__all__ = ["MOST_MARKS", "MOST_STATEMENTS", "UnitRecord", "name_of"]

MOST_STATEMENTS = 300
"""For each unit; those after that are one mark, up to its next outcome."""
MOST_MARKS = 1_000
"""For each unit: of one that goes on, as a WebSocket's, the older half is dropped."""


class UnitRecord:
    """One unit, from its first event on. Written by whichever thread it happens in."""

    __slots__ = (
        "_entries",
        "ended_at",
        "info",
        "is_retried",
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
        self._entries: list[TimelineMark | Event] = []
        """Events as they are: marks are made of them when they are looked at."""
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

    @property
    def marks(self) -> list[TimelineMark]:
        """What has happened, in its order."""
        return [mark_of(each) for each in self._entries.copy()]

    def add(self, entry: TimelineMark | Event) -> None:
        """Add *entry*; drop the oldest ones if there are too many."""
        if len(self._entries) >= MOST_MARKS:
            del self._entries[: MOST_MARKS // 2]
        self._entries.append(entry)

    def add_statement(self, entry: TimelineMark | StatementExecuted) -> None:
        """Add a statement; of those that are too many, one mark stands for several."""
        self.statements += 1
        if self.statements <= MOST_STATEMENTS:
            self.add(entry)
            return
        mark = mark_of(entry)
        for position in range(len(self._entries) - 1, -1, -1):
            first = mark_of(self._entries[position])
            if first.kind == "statements":
                self._entries[position] = _joined(first, mark)
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


def _joined(first: TimelineMark, last: TimelineMark) -> TimelineMark:
    """The mark of several statements, with one more."""
    count = int(first.text.partition(" ")[0]) + 1
    lasted = last.at - (first.at - first.seconds)
    return first._replace(at=last.at, seconds=lasted, text=f"{count} more statements")
