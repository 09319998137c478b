"""Ends the prepared transactions that a crash has left of two-phase commits.

`DBSessionMiddleware(twophase=True)` does that while the application runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._execution.async_runner import arun
from ._execution.sync_runner import run
from ._twophase.coordinator import DECIDED_WITHIN
from ._twophase.janitor import MIN_AGE
from ._twophase.order import CommitOrder
from ._twophase.resolve import Recovered, recovery
from ._unit.database_base import core_of
from .database import AsyncDatabase, Database
from .errors import UsageError

__all__ = ["Recovered", "arecover", "recover"]


def recover(*databases: Database[Any], min_age: float = MIN_AGE) -> list[Recovered]:
    """Commit or roll back the prepared transactions that a crash has left behind.

    Give the *databases* of the middleware, in the same order: others are not touched,
    and neither are those that have been prepared for less than *min_age* seconds. It
    waits for that long if it finds any. Give 0 only while no application runs: else
    a commit that is under way would be taken for left behind.

    Several processes may run it at once. Raises `UsageError` for a *min_age* that is
    not 0 and shorter than a commit may take; a database that does not answer is logged,
    and what depends on its answer is left.

    .. versionadded:: 0.1
    """
    return run(recovery(_order_of(databases), _checked(min_age)))


async def arecover(
    *databases: AsyncDatabase[Any] | Database[Any], min_age: float = MIN_AGE
) -> list[Recovered]:
    """Commit or roll back what a crash has left, as `recover()` does, in an event loop.

    Takes databases of both kinds.

    .. versionadded:: 0.1
    """
    return await arun(recovery(_order_of(databases), _checked(min_age)))


def _order_of(databases: Sequence[AsyncDatabase[Any] | Database[Any]]) -> CommitOrder:
    return CommitOrder([core_of(database) for database in databases])


def _checked(min_age: float) -> float:
    if min_age != 0 and not min_age > DECIDED_WITHIN:
        raise UsageError(
            f"min_age is {min_age!r}; give more than {DECIDED_WITHIN:g} seconds, which "
            "a commit may take, or 0 if no application runs"
        )
    return min_age
