"""Logs the units that have taken longer than `slow_unit_warning`."""

from __future__ import annotations

import logging
import time

from .unit import Unit

__all__ = ["report_if_slow"]

log = logging.getLogger("unitwork")


def report_if_slow(unit: Unit) -> None:
    """Log each transaction of *unit*, which has ended, that has taken too long."""
    for database, session in unit.sessions.items():
        begun_at, limit = session.ends.begun_at, session.settings.slow_unit_warning
        if begun_at is None or limit is None or session in unit.kept_open:
            continue
        session.ends.begun_at = None
        if (seconds := time.monotonic() - begun_at) > limit:
            log.warning(
                "slow unit of work: %s used database %r for %.3f seconds, more than "
                "slow_unit_warning=%g",
                unit.owner.description,
                database.name,
                seconds,
                limit,
            )
