"""Counts of outcomes, and how long COMMITs and connections took, for each route."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from math import ceil
from typing import Any, TypedDict

from .._observing.unit_events import UnitEnded
from ..outcome import Outcome

__all__ = ["Outcomes", "Spread", "spread"]

_ROUTES = 200
_REASONS = 30  # of each route
_KEPT = 500  # durations of each kind, the last ones
_MINUTE = 60
_OTHERS = "(all other routes)"
_OTHER_REASONS = "(other reasons)"


class Spread(TypedDict):
    """How some durations are distributed, in seconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def spread(durations: Sequence[float]) -> Spread | None:
    """The percentiles of *durations*, each of them one that was measured."""
    if not durations:
        return None
    ordered = sorted(durations)

    def at(share: float) -> float:
        return round(ordered[ceil(share * len(ordered)) - 1], 6)

    return {
        "count": len(ordered),
        "p50": at(0.5),
        "p95": at(0.95),
        "p99": at(0.99),
        "max": at(1.0),
    }


class _RouteCounts:
    """What is counted of one route."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.units = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: dict[tuple[str, str], list[float]] = {}
        """How often each was, and when the last time."""
        self.attempts = 0
        """Those after the first one."""
        self.commit: deque[float] = deque(maxlen=_KEPT)
        self.held: deque[float] = deque(maxlen=_KEPT)
        self.idle: deque[float] = deque(maxlen=_KEPT)
        self.duration: deque[float] = deque(maxlen=_KEPT)
        self.ended_at: deque[float] = deque(maxlen=_KEPT * 10)
        self._summary: tuple[int, dict[str, Any]] = -1, {}

    def add(self, event: UnitEnded) -> None:
        self.units += 1
        outcome, reason = event.outcome.value, event.reason
        if (outcome, reason) not in self.reasons and len(self.reasons) >= _REASONS:
            reason = _OTHER_REASONS
        counted = self.reasons.setdefault((outcome, reason), [0, 0.0])
        counted[0], counted[1] = counted[0] + 1, event.at
        self.outcomes[outcome] += 1
        self.attempts += event.unit.attempt > 1
        self.duration.append(event.duration)
        self.ended_at.append(event.at)
        if event.use.connections:
            self.held.append(event.use.held)
            self.idle.append(event.use.idle)

    def summary(self, now: float) -> dict[str, Any]:
        """As JSON; the percentiles are computed again only if there are new units."""
        version = self.units + len(self.commit)
        if self._summary[0] != version:
            self._summary = (
                version,
                {
                    name: spread(list(getattr(self, name)))
                    for name in ("duration", "commit", "held", "idle")
                },
            )
        ended = list(self.ended_at)
        return {
            "name": self.name,
            "units": self.units,
            "last_minute": sum(at > now - _MINUTE for at in ended),
            "outcomes": {x.value: self.outcomes[x.value] for x in Outcome},
            "repeated_attempts": self.attempts,
            **self._summary[1],
        }


class Outcomes:
    """The counts of all routes; of at most some hundred, the others are one."""

    def __init__(self) -> None:
        self._routes: dict[str, _RouteCounts] = {}

    def _route(self, name: str) -> _RouteCounts:
        found = self._routes.get(name)
        if found is None:
            name = name if len(self._routes) < _ROUTES else _OTHERS
            found = self._routes.setdefault(name, _RouteCounts(name))
        return found

    def unit_ended(self, name: str, event: UnitEnded) -> None:
        self._route(name).add(event)

    def committed(self, name: str, duration: float) -> None:
        self._route(name).commit.append(duration)

    def routes(self) -> list[dict[str, Any]]:
        """One entry for each route, the most frequent first."""
        now = time.monotonic()
        found = [each.summary(now) for each in self._routes.copy().values()]
        return sorted(found, key=lambda each: (-each["units"], each["name"]))

    def reasons(self, offset: float) -> list[dict[str, Any]]:
        """One entry for each outcome of each route and its reason."""
        return [
            {
                "name": route.name,
                "outcome": outcome,
                "reason": reason,
                "count": count,
                "last": round(last + offset, 3),
            }
            for route in self._routes.copy().values()
            for (outcome, reason), (count, last) in sorted(route.reasons.copy().items())
        ]
