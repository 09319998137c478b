"""What the clients were told, held against what is in the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from faults.plan import Plan
from support.asgi import Reply
from unitwork import CommitUnknownError


class Told(Enum):
    """What the client of a request knows."""

    ACKNOWLEDGED = "acknowledged"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"
    """It has left, without an answer."""


def told_by(reply: Reply, *, left: bool) -> Told:
    """What a complete answer, or the lack of it, says."""
    if reply.complete and reply.status is not None and reply.status < 400:
        return Told.ACKNOWLEDGED
    if isinstance(reply.error, CommitUnknownError):
        return Told.UNKNOWN
    return Told.ABANDONED if left and not reply.complete else Told.REFUSED


def told_by_start(reply: Reply, *, left: bool) -> Told:
    """What an answer says whose body may be missing."""
    if reply.status is not None and reply.status < 400:
        return Told.ACKNOWLEDGED
    return told_by(reply, left=left)


class Work(NamedTuple):
    """What a request was to store, and what its client knows about that."""

    number: int
    """Of the request."""
    part: str
    """Of a request that stores several times."""
    told: Told
    status: int | None
    error: str

    @property
    def key(self) -> str:
        return f"r{self.number} {self.part}".rstrip()


@dataclass
class Report:
    """What a run has come to. The lists hold what is wrong, in words."""

    requests: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    told: Counter[Told] = field(default_factory=Counter)
    lies: list[str] = field(default_factory=list)
    """Acknowledged, and not there exactly once; or money that is gone."""
    ghosts: list[str] = field(default_factory=list)
    """Refused, and there all the same."""
    hung: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    """Called unknown although there was nothing to store."""

    @property
    def wrong(self) -> list[str]:
        kinds = ("lies", "ghosts", "hung", "leaked")
        return [f"{kind}: {each}" for kind in kinds for each in getattr(self, kind)]


class History:
    """Keeps as little as possible of what has happened in a run of *plan*."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._works: list[Work] = []

    def add(self, work: Work) -> None:
        self._works.append(work)

    def lies(self, stored: Counter[str]) -> Iterator[str]:
        for work in self._works:
            count = stored[work.key]
            if count > 1 or (count == 0 and work.told is Told.ACKNOWLEDGED):
                yield f"{self._story(work)}; it is there {count} times"

    def ghosts(self, stored: Counter[str]) -> Iterator[str]:
        for work in self._works:
            if work.told is Told.REFUSED and stored[work.key]:
                yield f"{self._story(work)}; but it is there"

    def _story(self, work: Work) -> str:
        case = self._plan.case(work.number)
        return f"{case} -> {work.told.value}, status {work.status}, {work.error}"
