"""Units that are recorded, as JSON: in a list, or one with all that happened."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from .clock import Clock
from .marks import TimelineMark
from .record import UnitRecord
from .timeline import segments_of

__all__ = ["History"]

_WHAT = {
    "waiting": "waits for a connection",
    "waited": "the wait is over",
    "taken": "connection taken",
    "begun": "BEGIN",
    "statement": "statement",
    "statements": "statements",
    "commit": "COMMIT sent",
    "committed": "COMMIT answered",
    "verified": "outcome verified",
    "returned": "connection returned",
    "outside": "outside() entered",
    "outside-left": "outside() left",
    "hook-failed": "a hook failed",
    "response": "response starts",
    "completed": "response completed",
    "settled": "outcome",
    "retried": "is tried again",
}


class History:
    """Describes records; its times are those of the clock, or seconds after BEGIN."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def in_short(self, record: UnitRecord) -> dict[str, Any]:
        """One bar of the timeline."""
        info, marks = record.info, record.marks
        last = _last(record, marks)
        return {
            "id": info.id,
            "name": record.name,
            "kind": info.kind,
            "parent": info.parent,
            "attempt": info.attempt,
            "retried": record.is_retried,
            "began": self._clock.wall(info.started),
            "duration": round(last - info.started, 6),
            "is_open": record.ended_at is None,
            "outcome": None if record.outcome is None else record.outcome.value,
            "reason": record.reason,
            "sqlstate": record.sqlstate,
            "status": record.status,
            "statements": record.statements,
            "pools": _pools_of(record, marks),
            "segments": [
                list(each)
                for each in segments_of(marks, info.started, last, record.outcome)
            ],
        }

    def in_full(
        self, record: UnitRecord, children: Iterable[UnitRecord]
    ) -> dict[str, Any]:
        """All that is known of one unit; *children* are the units inside, or after."""
        info = record.info
        return {
            **self.in_short(record),
            "path": info.path,
            "method": info.method,
            "databases": list(info.databases),
            "connections": record.use.connections,
            "held": round(record.use.held, 6),
            "idle": round(record.use.idle, 6),
            "events": [self._event(mark, info.started) for mark in record.marks],
            "children": [self.in_short(each) for each in children],
        }

    def _event(self, mark: TimelineMark, began: float) -> dict[str, Any]:
        site = "" if mark.call_site is None else str(mark.call_site)
        return {
            "at": round(mark.at - began, 6),
            "what": _WHAT[mark.kind],
            "seconds": round(mark.seconds, 6),
            "database": mark.database,
            "pool": mark.pool,
            "text": mark.text or (f"taken at {site}" if site else ""),
            "failed": mark.failed,
        }


def _pools_of(record: UnitRecord, marks: list[TimelineMark]) -> list[str]:
    """Those that its connections came from; each replica has one of its own."""
    taken = [mark.pool for mark in marks if mark.kind == "taken"]
    return list(dict.fromkeys([*record.use.pools, *taken]))


def _last(record: UnitRecord, marks: list[TimelineMark]) -> float:
    """When its bar ends: now, if it is open."""
    if record.ended_at is None:
        return time.monotonic()
    return max([record.ended_at, *(mark.at for mark in marks[-3:])])
