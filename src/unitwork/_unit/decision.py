"""What the code of a unit has decided about its end, before its policy is applied."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from ..outcome import Verdict

__all__ = ["UNDECIDED", "Decision", "Intent"]


class Intent(IntEnum):
    """Whether a unit is to be committed, as far as its code has said. Only rises."""

    UNDECIDED = 0
    COMMIT_ANYWAY = 1
    ROLLBACK_ONLY = 2
    LOST = 3
    """An error lost the work, and was not raised any further."""


class Decision(NamedTuple):
    """The intent, and why. A unit replaces its decision, and never changes it."""

    intent: Intent = Intent.UNDECIDED
    reason: str = ""
    failure: BaseException | None = None
    """What lost the work, with `Intent.LOST`."""
    requested: Verdict | None = None
    """What the application has requested, which comes before the policy."""

    def raised(
        self, intent: Intent, reason: str, failure: BaseException | None = None
    ) -> Decision:
        """The decision with *intent*; this one, if its own is as high."""
        if intent <= self.intent:
            return self
        return self._replace(intent=intent, reason=reason, failure=failure)

    def requesting(self, verdict: Verdict) -> Decision:
        """The decision once the application has requested *verdict*.

        A rollback is requested in place of a commit, but not the other way round.
        """
        if verdict.commit:
            found = self._replace(requested=self.requested or verdict)
            return found.raised(Intent.COMMIT_ANYWAY, verdict.reason)
        found = self._replace(requested=verdict)
        return found.raised(Intent.ROLLBACK_ONLY, verdict.reason)

    @property
    def requests_rollback(self) -> bool:
        return self.requested is not None and not self.requested.commit

    @property
    def reason_of_rollback(self) -> str:
        """Why the work is rolled back that the policy would have committed."""
        if self.requested is not None and not self.requested.commit:
            return self.requested.reason or self.reason
        return self.reason


UNDECIDED = Decision()
