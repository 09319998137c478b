"""The errors of a commit of several databases."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CommitUnknownError, PartialCommitError

__all__ = ["partial_commit", "unknown_commit"]


def unknown_commit(names: Sequence[str]) -> CommitUnknownError:
    return CommitUnknownError(
        f"the commit of {', '.join(map(repr, names))} was not acknowledged in time: "
        "all of them will be committed or none, and recover() will end what is still "
        "prepared; check that before trying again"
    )


def partial_commit(
    committed: Sequence[str],
    *,
    rolled_back: Sequence[str] = (),
    unknown: Sequence[str] = (),
    advice: str = "check that before trying again",
) -> PartialCommitError:
    """Make the error; its message lists the outcome of each database."""
    outcomes = {
        "committed": committed,
        "rolled back": rolled_back,
        "unknown": unknown,
    }
    listed = "; ".join(
        f"{outcome}: {', '.join(map(repr, names))}"
        for outcome, names in outcomes.items()
        if names
    )
    return PartialCommitError(
        f"only a part of this unit is stored ({listed}); {advice}",
        committed=tuple(committed),
        rolled_back=tuple(rolled_back),
        unknown=tuple(unknown),
    )
