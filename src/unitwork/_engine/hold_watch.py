"""Who holds the connections of a pool, and a warning for those held too long.

One watchdog serves all pools: it looks at them from time to time, while there is one in
use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Engine

from .._concurrency.fork import forget_after_fork
from .._concurrency.watchdog import Watchdog
from .._transaction.hold import HeldConnection, Hold
from .._transaction.loan import Loan
from .pool_events import all_loans, loans_of

__all__ = ["held_connections", "hold_watch", "listed"]

log = logging.getLogger("unitwork")

_MOST_SHOWN = 5  # connections in one message
_SHORTEST = 0.02  # seconds between two looks
_REMEDY = (
    "To hold none during a slow call, make it inside `unit.outside()`, before the "
    "first write"
)


class _HoldWatch(Watchdog):
    """Looks at all connections that units hold, as long as there are any."""

    __slots__ = ("__weakref__", "is_on")

    def __init__(self) -> None:
        super().__init__(0.0)
        self.is_on = False
        forget_after_fork(self)

    def forget_parent(self) -> None:
        self.is_on = False

    def start(self, limit: float) -> None:
        """Look for connections held longer than *limit* seconds, and others."""
        self.is_on = True
        self.seconds = max(limit / 4, _SHORTEST)
        self.__enter__()

    def expired(self) -> Callable[[], None]:
        """Find those that are held too long; return what logs them."""
        self.is_on = False  # if this fails, the next connection starts it again
        now = time.monotonic()
        found: list[tuple[HeldConnection, Hold, float]] = []
        limits = []
        for loan, hold in _held(all_loans()):
            if hold.limit is None or hold.reported_as:
                continue
            limits.append(hold.limit)
            if now - hold.taken_at > hold.limit:
                hold.reported_as = _unit_of(loan)
                found.append((hold.describe(hold.reported_as), hold, hold.limit))
        if limits:
            self.start(min(limits))
        return lambda: _warn(found)


def _warn(found: list[tuple[HeldConnection, Hold, float]]) -> None:
    for held, hold, limit in found:
        if hold.report is not None:
            hold.report.held_too_long(held.held, held.idle, hold.call_site)
        log.warning(
            "a connection is held for longer than hold_warning=%g: %s",
            limit,
            f"{held}. {_REMEDY}",
            extra=held.fields,
        )


def _unit_of(loan: Loan) -> str:
    holder = loan.holder
    return "a unit of work" if holder is None else holder.describe()


def _held(loans: list[Loan]) -> Iterator[tuple[Loan, Hold]]:
    for loan in loans:
        if loan.hold is not None and loan.hold.returned_at is None:
            yield loan, loan.hold


def held_connections(engine: Engine) -> list[HeldConnection]:
    """The connections of *engine*'s pool that units hold, the longest first. No I/O."""
    held = [hold.describe(_unit_of(loan)) for loan, hold in _held(loans_of(engine))]
    return sorted(held, key=lambda each: -each.held)


def listed(held: Sequence[HeldConnection]) -> str:
    """An addition to a message: who holds the connections."""
    if not held:
        return ""
    shown = "".join(f"\n- {each}" for each in held[:_MOST_SHOWN])
    rest = len(held) - _MOST_SHOWN
    return f". Held by:{shown}" + (f"\n- and {rest} more" if rest > 0 else "")


hold_watch = _HoldWatch()
