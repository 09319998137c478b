"""Work for `db.run()`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from anyio import to_thread
from sqlalchemy.orm import Session

from support.conflicts import Conflict
from support.flavours import Flavour
from support.models import add_item
from unitwork import RetryPolicy, UnitOfWork, current_unit

NOW = RetryPolicy(longest_wait=0)
Body = Callable[..., Any]


async def run(flavour: Flavour, body: Body, *args: Any, **options: Any) -> Any:
    """`db.run()` of either colour, away from the event loop's thread."""
    options = {"retry": NOW, **options}
    if flavour.is_async:

        async def work(session: Any, *args: Any) -> Any:
            return await session.run_sync(body, *args)

        return await flavour.db.run(work, *args, **options)
    return await to_thread.run_sync(partial(flavour.db.run, body, *args, **options))


class Failing:
    """A body that fails as often as *times* says."""

    def __init__(self, times: int, error: type[Exception] = Conflict) -> None:
        self.times = times
        self.error = error
        self.units: list[UnitOfWork] = []
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, session: Session) -> int:
        unit = current_unit()
        self.units.append(unit)
        self.calls.append((unit.attempt, unit.is_last_attempt))
        add_item(session, f"attempt {len(self.calls)}")
        if len(self.calls) <= self.times:
            raise self.error(str(len(self.calls)))
        return unit.attempt
