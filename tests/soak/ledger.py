"""What the events, and the metrics made of them, must add up to.

Three counts of the same units are compared: those of the events, those of the metrics,
and the ledger, which is kept where a unit is closed, without any event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from support.event_grammar import EventGrammar
from support.exported import Exported
from unitwork._observing.registry import observing
from unitwork._unit.unit import Unit
from unitwork.events import (
    CommitAnswered,
    CommitSent,
    ConnectionReturned,
    ConnectionTaken,
    Event,
    OutcomeVerified,
    UnitBegun,
    UnitEnded,
    UnitInfo,
    UnitRetried,
    WaitEnded,
    WaitStarted,
)
from unitwork.telemetry import instrument

PAIRS = (
    (UnitBegun, UnitEnded),
    (ConnectionTaken, ConnectionReturned),
    (WaitStarted, WaitEnded),
    (CommitSent, CommitAnswered),
)


class Ledger:
    """An observer, the metrics, and the ledger of one run."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._events: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        """By the events."""
        self._closed: Counter[str] = Counter()
        """By the units themselves."""
        self._units: Counter[tuple[type[Event], int]] = Counter()
        self._open: dict[int, UnitInfo] = {}
        self._exported = Exported()
        self._grammar = EventGrammar()
        self.retries = 0
        """By the programs: how often their work was run again."""
        self.interrupted = 0
        """Programs that may have been interrupted before they were run again."""

    def observe(self, db: Any) -> Callable[[], None]:
        """Observe *db*; return what ends that."""
        stops = [
            db.observe(self),
            db.observe(self._grammar),
            instrument(db, tracing=False, **self._exported.providers),
        ]
        return lambda: [stop() for stop in stops] and None

    def on_event(self, event: Event) -> None:
        with self._lock:
            self._events[type(event).__name__] += 1
            if isinstance(event, UnitBegun):
                self._open[event.unit.id] = event.unit
            if isinstance(event, UnitEnded):
                self._open.pop(event.unit.id)
            if isinstance(event, UnitBegun | UnitEnded):
                self._units[type(event), event.unit.id] += 1
            if isinstance(event, UnitEnded):
                self._outcomes[event.outcome.name] += 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the units that are closed in the block."""
        close = Unit.close

        def counted(unit: Unit) -> None:
            was_open = unit.is_open
            close(unit)
            if was_open and not unit.is_open and unit.report is not None:
                with self._lock:
                    self._closed[unit.outcome.name if unit.outcome else ""] += 1

        Unit.close = counted  # type: ignore[method-assign]  # for the time of a test
        try:
            yield
        finally:
            Unit.close = close  # type: ignore[method-assign]

    def wrong(self) -> list[str]:
        """What does not add up, now that nothing moves any more."""
        wrong = [
            f"{begin.__name__}: {first}, {end.__name__}: {second}"
            for begin, end in PAIRS
            if (first := self._events[begin.__name__])
            != (second := self._events[end.__name__])
        ]
        wrong += [f"{key}: {n} times" for key, n in self._units.items() if n != 1]
        wrong += [f"open: {unit}" for unit in self._open.values()]
        if self._outcomes != self._closed:
            wrong.append(f"outcomes: {self._outcomes}, closed: {self._closed}")
        wrong += self._wrong_metrics()
        wrong += self._grammar.wrong
        if observing.registrations < 0:
            wrong.append("more observers were removed than added")
        return wrong

    def _wrong_metrics(self) -> Iterator[str]:
        total, events = self._exported.total, self._events
        expected = {
            "unitwork.commit.duration": events[CommitAnswered.__name__],
            "unitwork.connection.held": events[ConnectionTaken.__name__],
            "unitwork.connection.holders": 0,
            "db.client.connection.pending_requests": 0,
            "unitwork.verifications": events[OutcomeVerified.__name__],
            "unitwork.retries": events[UnitRetried.__name__],
            "unitwork.unit.duration": self._closed.total(),
        }
        for name, count in expected.items():
            if total(name) != count:
                yield f"{name}: {total(name)}, not {count}"
        for outcome, count in self._closed.items():
            found = total("unitwork.unit.duration", unitwork_outcome=outcome.lower())
            if found != count:
                yield f"units that are {outcome}: {found}, not {count}"
        unseen = events[UnitRetried.__name__] - self.retries
        if not 0 <= unseen <= self.interrupted:
            yield f"retries: {events[UnitRetried.__name__]}, not {self.retries}"

    @property
    def outcomes(self) -> Counter[str]:
        return self._closed
