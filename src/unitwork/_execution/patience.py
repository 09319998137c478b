"""How long an ending waits for others that still use a session."""

from __future__ import annotations

import time

from .._session.unit_session import UnitSession
from ..errors import UsageError

__all__ = ["POLL_INTERVAL", "Patience"]

POLL_INTERVAL = 0.005  # seconds between two looks at a session that is in use


class Patience:
    """With other tasks or threads that still use a session which is to end."""

    __slots__ = ("_session", "_until")

    def __init__(self, session: UnitSession) -> None:
        self._session = session
        self._until = time.monotonic() + session.settings.end_timeout

    def check(self) -> None:
        """Once it has run out, break off what the others are doing, and raise."""
        if time.monotonic() > self._until:
            self._session.abort_connections()
            raise UsageError(
                "another task or thread still used the session "
                f"{self._session.settings.end_timeout:g} seconds after its unit of "
                "work had come to an end; await what you start, or give it a unit of "
                "its own: `async with db.transaction() as session:`"
            )
