"""The header `Server-Timing` of a response: how long its unit has used the database."""

from __future__ import annotations

import logging
from collections.abc import Callable

from .._callables import returned_plainly
from .._observing.unit_report import UnitReport
from .types import Message, Scope

__all__ = ["ServerTiming", "add_timing"]

log = logging.getLogger("unitwork")

ServerTiming = Callable[[Scope], bool]


def add_timing(
    message: Message, report: UnitReport, scope: Scope, wanted: ServerTiming
) -> None:
    """Add the header to the start of the response, if that is *wanted* for *scope*.

    Raises nothing: the unit is committed already.
    """
    try:
        found = wanted(scope)
        returned_plainly("server_timing", found)
        if found:
            value = _value_of(report).encode()
            message["headers"] = [
                *message.get("headers", ()),
                (b"server-timing", value),
            ]
    except Exception:
        log.exception("server_timing has failed")


def _value_of(report: UnitReport) -> str:
    """The times in milliseconds, as "Server Timing" of the W3C says."""
    times = {
        "db-wait": report.wait_time,
        "db-sql": report.statement_time,
        "db-commit": report.commit_time,
    }
    parts = [f"{name};dur={1000 * seconds:.1f}" for name, seconds in times.items()]
    parts[1] += f';desc="{report.statements} statements"'
    return ", ".join(parts)
