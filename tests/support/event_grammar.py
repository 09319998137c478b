"""In which order the events of a unit may come."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from unitwork.events import (
    CommitAnswered,
    CommitSent,
    ConnectionReturned,
    ConnectionTaken,
    Event,
    HookFailed,
    PoolEvent,
    ResponseCompleted,
    ResponseStarted,
    StatementExecuted,
    TransactionBegun,
    UnitBegun,
    UnitEnded,
    UnitEvent,
    UnitInfo,
    UnitRetried,
    UnitSettled,
    WaitEnded,
    WaitStarted,
)

PAIRS: dict[type[Event], type[Event]] = {
    WaitEnded: WaitStarted,
    ConnectionReturned: ConnectionTaken,
    CommitAnswered: CommitSent,
}
AFTER_THE_END = (UnitRetried, ResponseStarted, ResponseCompleted, HookFailed)
WITH_A_CONNECTION = (TransactionBegun, StatementExecuted, CommitSent)


class _Unit:
    """What is known of one unit so far."""

    def __init__(self) -> None:
        self.last_at = 0.0
        self.open: Counter[tuple[type[Event], str]] = Counter()
        self.settled: list[UnitSettled] = []
        self.seen: Counter[type[Event]] = Counter()

    def add(self, event: Event, database: str) -> list[str]:
        kind, wrong = type(event), []
        if self.seen[UnitEnded] and kind not in AFTER_THE_END:
            wrong.append("after the end")
        if kind is not UnitBegun and not self.seen[UnitBegun]:
            wrong.append("before the beginning")
        if kind in (UnitBegun, UnitEnded, UnitRetried) and self.seen[kind]:
            wrong.append("twice")
        if kind in WITH_A_CONNECTION and not self.open[ConnectionTaken, database]:
            wrong.append("without a connection")
        if (first := PAIRS.get(kind)) is not None:
            if not self.open[first, database]:
                wrong.append(f"without {first.__name__}")
            self.open[first, database] -= 1
        if kind is CommitSent and self.open[CommitSent, database]:
            wrong.append("while another COMMIT is under way")
        if kind in PAIRS.values():
            self.open[kind, database] += 1
        if isinstance(event, UnitSettled):
            self.settled.append(event)
        if isinstance(event, UnitEnded):
            wrong += self._wrong_at_the_end(event)
        self.seen[kind] += 1
        return wrong

    def _wrong_at_the_end(self, ended: UnitEnded) -> list[str]:
        wrong = [
            f"with an open {kind.__name__} of {database}"
            for (kind, database), count in self.open.items()
            if count > 0 and kind is not ConnectionTaken  # returned by its close
        ]
        if self.seen[TransactionBegun] and not self.settled:
            wrong.append("without an outcome")
        if self.settled and self.settled[-1].outcome is not ended.outcome:
            wrong.append(f"{ended.outcome}, after {self.settled[-1].outcome}")
        if ended.use.connections != self.seen[ConnectionTaken]:
            wrong.append(f"{ended.use}, after {self.seen[ConnectionTaken]} connections")
        return wrong


class EventGrammar:
    """An observer that checks the events of each unit; may be shared by databases."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._units: dict[int, tuple[UnitInfo, _Unit]] = {}
        self.wrong: list[str] = []

    def on_event(self, event: Event) -> None:
        unit = event.unit if isinstance(event, UnitEvent | PoolEvent) else None
        if unit is None:
            return
        database: str = getattr(event, "database", "")
        with self._lock:
            _, known = self._units.setdefault(unit.id, (unit, _Unit()))
            for each in known.add(event, database):
                self.wrong.append(f"{unit.description}: {event!r} {each}")

    def check(self, *, units: int = 1) -> None:
        """Fail if an event was wrong or a unit is open; *units* were there at least."""
        with self._lock:
            open_ones = [
                f"{unit.description} has no end"
                for unit, known in self._units.values()
                if not known.seen[UnitEnded]
            ]
            held = [
                f"{unit.description}: a connection of {database} was not returned"
                for unit, known in self._units.values()
                for (_, database), count in known.open.items()
                if count
            ]
        assert self.wrong + open_ones + held == []
        assert len(self._units) >= units
