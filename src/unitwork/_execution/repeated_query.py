"""Repeats a query that a database may not be able to answer yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy.orm import Session

from .._session.unit_session import UnitSession
from .plan import Pause, Plan, Step

__all__ = ["query_until_known"]

_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 1.0


def query_until_known(
    session: UnitSession,
    query: Callable[[float], bool | None],
    until: float | None = None,
) -> Plan[bool | None]:
    """Repeat *query*, with growing pauses; return `None` once the time is over.

    *query* gets the seconds that it may take. The time is the `verify_timeout` of
    the session's database, and ends at *until*, by `time.monotonic()`, at the latest.
    """
    limit = session.settings.verify_timeout
    end = time.monotonic() + limit
    end = end if until is None else min(until, end)
    pause = _FIRST_PAUSE
    while (left := end - time.monotonic()) > 0:
        once = min(left, limit / 4)  # one that hangs must leave time for others
        with suppress(TimeoutError):
            answer: bool | None
            call = partial(_execute, query, once)
            # The application's own commit, which has not returned, may have led here.
            answer = yield Step(call, session, once / 2, waits=False)
            if answer is not None:
                return answer
        yield Pause(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return None


def _execute(
    query: Callable[[float], bool | None], limit: float, session: Session
) -> bool | None:
    return query(limit)
