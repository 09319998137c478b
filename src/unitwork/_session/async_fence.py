"""The one part of the fence that an `AsyncSession` does not get by its sync session."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

from ..errors import UsageError
from .misuse import CALLED
from .unit_session import unit_session_of

__all__ = ["fenced_async"]


@cache
def fenced_async(session_class: type[Any]) -> type[Any]:
    """Derive from *session_class* a class that records errors in its `async with`."""

    async def __aexit__(
        self: Any, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        # It closes in a task of its own, which does not see the exception.
        unit_session = unit_session_of(self.sync_session)
        if unit_session is not None:
            unit_session.ends.left_by_error = error is not None
        await session_class.__aexit__(self, kind, error, traceback)

    def __call__(self: Any, *args: object, **kwargs: object) -> NoReturn:
        raise UsageError(CALLED)

    members = {"__aexit__": __aexit__, "__call__": __call__}
    return type(session_class.__name__, (session_class,), members)
