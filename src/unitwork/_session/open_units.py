"""The units that have a session of one database: a shutdown waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .owner import SessionOwner
from .unit_session import UnitSession

__all__ = ["OpenUnits"]


class OpenUnits(set[SessionOwner[UnitSession]]):
    """The units that have a session of one database, until they are closed."""

    _on_empty: Callable[[], object] | None = None

    @property
    def are_awaited(self) -> bool:
        return self._on_empty is not None

    def closed(self, unit: SessionOwner[UnitSession]) -> None:
        """Forget *unit*, whose session has been closed."""
        self.discard(unit)
        if (on_empty := self._on_empty) is not None and not self:
            on_empty()

    async def drain(self, limit: float) -> list[SessionOwner[UnitSession]]:
        """Wait *limit* seconds until they are closed; return those still open."""
        loop = asyncio.get_running_loop()
        empty = asyncio.Event()
        self._on_empty = lambda: loop.call_soon_threadsafe(empty.set)
        try:
            if self:
                async with asyncio.timeout(limit):
                    await empty.wait()
        except TimeoutError:
            pass
        finally:
            self._on_empty = None
        return list(self)
