"""Logs the units that have used a database for longer than `slow_unit_warning`."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Protocol

from .._session.unit_session import UnitSession
from .attempts import Attempt
from .owner import UnitOwner
from .sessions import Sessions

__all__ = ["report_if_slow"]

log = logging.getLogger("unitwork")


class _Unit(Protocol):
    """A unit, which imports this module and not the other way round."""

    kept_open: Collection[UnitSession]
    owner: UnitOwner
    sessions: Sessions

    @property
    def attempt(self) -> Attempt: ...

    @property
    def may_be_retried(self) -> bool: ...


def report_if_slow(unit: _Unit) -> None:
    """Log each database whose transactions in *unit*, which have ended, took too long.

    Those of its earlier attempts count.
    """
    for database, session in unit.sessions.items():
        limit = session.settings.slow_unit_warning
        if limit is None or session in unit.kept_open:
            continue
        if not (seconds := session.ends.take_seconds()):
            continue
        before = unit.attempt.seconds_used.get(database.name, 0.0)
        if unit.may_be_retried:
            unit.attempt.seconds_used[database.name] = before + seconds
        if before + seconds > limit:
            log.warning(
                "slow unit of work: %s used database %r for %.3f seconds, more than "
                "slow_unit_warning=%g",
                unit.owner.description,
                database.name,
                before + seconds,
                limit,
                extra={
                    "unitwork_route": unit.owner.find_route(),
                    "unitwork_database": database.name,
                    "unitwork_attempt": unit.attempt.number,
                    "unitwork_duration": before + seconds,
                },
            )
