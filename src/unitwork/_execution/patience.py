"""How long an ending waits for tasks or threads that still use a session."""

from __future__ import annotations

import time

from .._session.unit_session import UnitSession
from ..errors import UsageError

__all__ = ["POLL_INTERVAL", "Patience"]

POLL_INTERVAL = 0.005  # seconds between two checks of a session that is in use


class Patience:
    """Limits the wait for other tasks or threads that use a session."""

    __slots__ = ("_session", "_until")

    def __init__(self, session: UnitSession) -> None:
        self._session = session
        self._until = time.monotonic() + session.settings.end_timeout

    def check(self) -> None:
        """Once the time is over, abort the connections, and raise `UsageError`."""
        if time.monotonic() > self._until:
            self._session.abort_connections()
            raise UsageError(
                "another task or thread still used the session "
                f"{self._session.settings.end_timeout:g} seconds after its unit of "
                "work had come to an end; await what you start, or give it a unit of "
                "its own: `db.transaction()`"
            )
