"""What a unit has to see of what was written before: by itself, or by others."""

from __future__ import annotations

from collections.abc import Iterator

from .._classify.classification import Kind, classify
from .._driver.gtids import LogPosition
from .._replicas.position import (
    NO_POSITIONS,
    ON_THE_PRIMARY,
    Position,
    Positions,
    decode,
    encode,
    latest,
    merged,
)
from .._session.unit_session import UnitSession
from .._twophase.participants import TwoPhaseCommit
from ..errors import UsageError
from ..outcome import Outcome
from .attempts import Attempt
from .owner import UnitOwner
from .sessions import Sessions

__all__ = ["SeesWrites"]


class SeesWrites:
    """The part of a unit that knows what it has stored, and what it has to see."""

    written: Positions = NO_POSITIONS
    """Of what it, and units inside it, have stored; replaced, never changed."""
    given: Positions = NO_POSITIONS
    """Of what it has to see besides, by `read_after()`."""
    owner: UnitOwner
    sessions: Sessions
    two_phase: TwoPhaseCommit | None
    replica_failure: Exception | None = None
    """What a replica has raised, if the work may go on at the primary."""

    @property
    def attempt(self) -> Attempt:
        raise NotImplementedError

    def outwards(self) -> Iterator[SeesWrites]:
        raise NotImplementedError

    def needed_position(self, session: UnitSession) -> Position | None:
        """Up to where *session* has to see its database; `None`: no matter."""
        if self.two_phase is not None:  # replicas can't prepare a commit
            return ON_THE_PRIMARY
        name = session.name
        found: list[Position] = []
        for unit in self.outwards():
            if unit.attempt.avoids_replicas:
                return ON_THE_PRIMARY
            for each in (unit.written, unit.given, unit.owner.given_positions()):
                if each and name in each:
                    found.append(each[name])
        return latest(found) if found else None

    def keep_given(self) -> None:
        """Keep what its owner was given, for blocks that outlive it: in tasks, say."""
        try:
            positions = self.owner.given_positions()
            if positions:
                self.given = merged(self.given, positions)
        except Exception:  # a carrier of the application's has failed
            pass

    def write_committed(self, session: UnitSession, at: LogPosition | None) -> None:
        """Record the position of what *session* has stored; `None`: not known."""
        if session.reading is not None:
            position = {session.name: session.reading.position_of(at)}
            for unit in self.outwards():
                unit.written = merged(unit.written, position)

    def record_writes(self, outcome: Outcome) -> None:
        """Record what is, or may be, stored, where COMMIT has given no position."""
        if outcome in (Outcome.ROLLED_BACK, Outcome.EMPTY):
            return
        for session in self.sessions.by_database.values():
            if session.reading is not None and session.reading.position_is_due:
                self.write_committed(session, None)

    def note_replica_failure(self, error: BaseException) -> None:
        """Record that *error* was raised by a replica, if that may be.

        One that is out of reach is not used until it is found to be well again.
        """
        for session in self.sessions:
            reading = session.reading
            if reading is None or reading.engine is None:
                continue
            for each in (error, *(loan.failure for loan in session.loans)):
                if not isinstance(each, Exception) or not _goes_on_elsewhere(each):
                    continue
                if not self.attempt.avoids_replicas:
                    self.replica_failure = each
                if classify(each).disconnected:
                    reading.replica_failed(each)
                break

    @property
    def token(self) -> str | None:
        """The token of what it has written, and of what it had to see."""
        found = merged(self.owner.given_positions(), merged(self.given, self.written))
        return encode(found) if found else None

    def read_after(self, token: str) -> None:
        """See what *token* is for; raise once it reads from a replica."""
        positions = decode(token)
        for session in self.sessions:
            reading = session.reading
            if reading is not None and reading.engine is not None:
                raise UsageError(
                    "read_after() comes too late: the unit reads from a replica "
                    "already; call it before the first statement"
                )
        self.given = merged(self.given, positions)


def _goes_on_elsewhere(error: Exception) -> bool:
    """Whether the primary would not raise *error*, which a replica has raised."""
    found = classify(error)
    refused_to_write = found.code == "25006"
    return found.retryable or (found.kind is Kind.PRIMARY and not refused_to_write)
