"""Work that fails before it succeeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.conflicts import Conflict
from support.endpoints import serve_fastapi
from support.flavours import Flavour
from support.models import add_item
from unitwork import RetryPolicy, TransactionOptions, current_unit

THREE = TransactionOptions(attempts=3)
NOW = RetryPolicy(longest_wait=0)
Body = Callable[[Session], Any]


class Failing:
    """A body that fails as often as *times* says, with *error*."""

    def __init__(self, times: int, error: Callable[[], Exception] = Conflict) -> None:
        self.times = times
        self.error = error
        self.calls: list[Any] = []

    def __call__(self, session: Session) -> int:
        add_item(session)
        unit = current_unit()
        self.calls.append((unit.attempt, unit.is_last_attempt))
        if len(self.calls) <= self.times:
            raise self.error()
        return unit.attempt


async def request(flavour: Flavour, body: Body, **options: Any) -> Reply:
    options = {"options": THREE, "retry": NOW, **options}
    return await call(serve_fastapi(flavour, body, **options), "POST", "/")
