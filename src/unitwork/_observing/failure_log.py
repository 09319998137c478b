"""An observer that logs the units that have failed, a line each."""

from __future__ import annotations

import logging

from ..outcome import Outcome
from .event import Event
from .unit_events import UnitEnded, UnitRetried

__all__ = ["FailureLog"]

_STORED = (Outcome.COMMITTED, Outcome.EMPTY)


class FailureLog:
    """An observer that logs each unit that was not committed, in one line.

    `db.observe(FailureLog(), only=[UnitEnded, UnitRetried])`. The line has the route,
    the outcome, the reason, the SQLSTATE, the attempt and the times; the record has
    them as attributes, too: `unitwork_unit` (its id), `unitwork_route`,
    `unitwork_outcome`, `unitwork_reason`, `unitwork_attempt`, `unitwork_sqlstate`,
    `unitwork_duration`, `unitwork_held`, `unitwork_idle`, `unitwork_pools` (a list of
    names: a replica has a pool of its own). An outcome that is unknown, or partial, is
    logged as an error, a rollback because of an error as a warning, any other one as
    information. If its work is then done once more, another warning says so.

    .. versionadded:: 0.2
    """

    def __init__(self, logger: str = "unitwork") -> None:
        self._log = logging.getLogger(logger)

    def on_event(self, event: Event, /) -> None:
        """Log *event*, if it is the end of a unit that has failed, or its retry."""
        if isinstance(event, UnitRetried):
            unit, extra = event.unit, {"unitwork_unit": event.unit.id}
            text = "%s: attempt %d is followed by another one"
            self._log.warning(text, unit.description, unit.attempt, extra=extra)
            return
        if not isinstance(event, UnitEnded) or event.outcome in _STORED:
            return
        unit, use, level = event.unit, event.use, logging.ERROR
        if event.outcome is Outcome.ROLLED_BACK:
            level = logging.INFO if event.error is None else logging.WARNING
        reason = event.reason
        if event.sqlstate is not None:
            reason += f", {event.sqlstate}"
        self._log.log(
            level,
            "%s: %s (%s), attempt %d, %.3f seconds, a connection was held for %.3f",
            unit.description,
            event.outcome.value,
            reason,
            unit.attempt,
            event.duration,
            use.held,
            extra={
                "unitwork_unit": unit.id,
                "unitwork_route": unit.route,
                "unitwork_outcome": event.outcome.name.lower(),
                "unitwork_reason": event.reason,
                "unitwork_attempt": unit.attempt,
                "unitwork_sqlstate": event.sqlstate,
                "unitwork_duration": event.duration,
                "unitwork_held": use.held,
                "unitwork_idle": use.idle,
                "unitwork_pools": list(use.pools),
            },
        )
