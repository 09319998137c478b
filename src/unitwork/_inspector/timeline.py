"""The time of a unit as segments of a bar: pure, from its marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..outcome import Outcome
from .marks import TimelineMark

__all__ = ["Segment", "segments_of"]

_SHORTEST_WAIT = 0.0005


class Segment(NamedTuple):
    """A part of the bar; *start* and *end* are seconds after the unit has begun.

    *kind* is `idle` (a connection is held, and nothing is executed), `wait`, `begin`,
    `statement`, `outside`, `commit`, `failed` (a COMMIT that has), `unknown` (one whose
    outcome is), `verify`, `rollback`, `start` (of the response), or `body`.
    """

    kind: str
    start: float
    end: float
    label: str = ""


def segments_of(
    marks: Sequence[TimelineMark], began: float, now: float, outcome: Outcome | None
) -> list[Segment]:
    """In the order in which they are drawn: the later ones cover the earlier ones.

    *now* is when what goes on ends, in the picture.
    """
    found = [*_held(marks, now), *_single(marks), *_commits(marks, now, outcome)]
    found += _outside(marks, now)
    found += _response(marks, now)
    return [
        each._replace(
            start=round(max(each.start - began, 0.0), 6),
            end=round(max(each.end - began, 0.0), 6),
        )
        for each in found
    ]


def _held(marks: Sequence[TimelineMark], now: float) -> Iterator[Segment]:
    """The connections: waited for, and held until they are returned."""
    taken: dict[str, TimelineMark] = {}
    waiting: dict[str, TimelineMark] = {}
    for mark in marks:
        if mark.kind == "waiting":
            waiting[mark.database] = mark
        elif mark.kind == "waited":
            waiting.pop(mark.database, None)
        elif mark.kind == "taken":
            taken[mark.database] = mark
        elif mark.kind == "returned" and mark.database in taken:
            since = taken.pop(mark.database)
            yield Segment("idle", since.at, mark.at, since.source)
    for mark in taken.values():
        yield Segment("idle", mark.at, now, mark.source)
    for mark in waiting.values():
        yield Segment("wait", mark.at, now, mark.source)


def _single(marks: Sequence[TimelineMark]) -> Iterator[Segment]:
    """What is over when it is reported."""
    for mark in marks:
        start = mark.at - mark.seconds
        if mark.kind == "waited" and mark.seconds > _SHORTEST_WAIT:
            yield Segment("wait", start, mark.at, mark.text or mark.source)
        elif mark.kind == "begun":
            yield Segment("begin", start, mark.at, mark.database)
        elif mark.kind in ("statement", "statements"):
            yield Segment("statement", start, mark.at, mark.text)
        elif mark.kind == "verified":
            yield Segment("verify", start, mark.at, mark.text)
        elif mark.kind == "settled" and mark.text == Outcome.ROLLED_BACK.value:
            yield Segment("rollback", mark.at, mark.at, "rolled back")


def _commits(
    marks: Sequence[TimelineMark], now: float, outcome: Outcome | None
) -> Iterator[Segment]:
    sent: dict[str, TimelineMark] = {}
    for mark in marks:
        if mark.kind == "commit":
            sent[mark.database] = mark
        elif mark.kind == "committed":
            begun = sent.pop(mark.database, mark)
            kind = "commit"
            if mark.failed:
                kind = "unknown" if outcome is Outcome.UNKNOWN else "failed"
            yield Segment(kind, begun.at, mark.at, mark.text or mark.database)
    for database, mark in sent.items():
        kind = "unknown" if outcome is Outcome.UNKNOWN else "commit"
        yield Segment(kind, mark.at, now, database)


def _outside(marks: Sequence[TimelineMark], now: float) -> Iterator[Segment]:
    entered: list[TimelineMark] = []
    for mark in marks:
        if mark.kind == "outside":
            entered.append(mark)
        elif mark.kind == "outside-left" and entered:
            yield Segment("outside", entered.pop().at, mark.at, mark.text)
    for mark in entered:
        yield Segment("outside", mark.at, now, mark.text)


def _response(marks: Sequence[TimelineMark], now: float) -> Iterator[Segment]:
    started = next((mark for mark in marks if mark.kind == "response"), None)
    if started is None:
        return
    end = next((mark.at for mark in marks if mark.kind == "completed"), now)
    yield Segment("body", started.at, end, f"response {started.text}")
    yield Segment("start", started.at, started.at, f"response {started.text}")
