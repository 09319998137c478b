"""Whether a session of a unit may be used, and whether its COMMIT is under way."""

from __future__ import annotations

from enum import Enum

__all__ = ["Access", "CommitState", "CommitWithdrawn"]


class Access(Enum):
    """Whether a session may be used. Identity is compared: this is on the hot path."""

    OPEN = "open"
    OUTSIDE = "outside"
    """The connection is released until the end of an `outside()` block."""
    REFUSED = "refused"
    """The unit is ending, or has ended and may be reopened."""
    CLOSED = "closed"
    """The unit is over."""


class CommitState(Enum):
    """Whether COMMIT is under way, and whether the application sent it."""

    NOT_SENT = "not sent"
    SENT_BY_APPLICATION = "sent by the application"
    """By `session.commit()`, which has not succeeded yet."""
    SENT_BY_UNIT = "sent by the unit"


class CommitWithdrawn(Exception):
    """A rollback was requested just before COMMIT was sent."""
