"""The errors of a commit of several databases."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CommitUnknownError

__all__ = ["unknown_commit"]


def unknown_commit(names: Sequence[str]) -> CommitUnknownError:
    return CommitUnknownError(
        f"the commit of {', '.join(map(repr, names))} was not acknowledged in time: "
        "all of them will be committed or none, and recover() will end what is still "
        "prepared; check that before trying again"
    )
