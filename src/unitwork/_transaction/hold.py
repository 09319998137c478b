"""How long a unit holds a connection, and for how much of that time it is idle."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from .._call_site import CallSite, format_call_site
from .._observing.hold_report import HoldReport
from .._observing.subjects import ConnectionUse
from .._sql.sql_text import shortened

__all__ = ["NO_USE", "ConnectionUse", "HeldConnection", "Hold", "use_of"]

log = logging.getLogger("unitwork")


class Hold:
    """One unit's use of one connection, from its checkout to its return.

    What executes a statement changes the attributes: a method would be one call more.
    """

    __slots__ = (
        "call_site",
        "comment",
        "idle",
        "idle_limit",
        "idle_since",
        "limit",
        "longest_idle",
        "report",
        "reported_as",
        "returned_at",
        "statement",
        "taken_at",
    )

    def __init__(
        self,
        call_site: CallSite | None,
        taken_at: float,
        limit: float | None,
        idle_limit: float | None,
    ) -> None:
        self.taken_at = taken_at
        self.call_site = call_site
        """The line that took it."""
        self.limit = limit
        """After how many seconds it is reported; `None`: never."""
        self.idle_limit = idle_limit
        """After how many idle seconds its statements are refused; `None`: never."""
        self.returned_at: float | None = None
        self.comment = ""
        """What each statement ends with."""
        self.statement = ""
        """The last one."""
        self.longest_idle = self.idle = 0.0
        """Seconds that it was idle: at once at most, and in all."""
        self.idle_since: float | None = None
        """When the last statement ended; `None`: one is under way, or BEGIN is."""
        self.report: HoldReport | None = None
        """What reports its events, if its database is observed."""
        self.reported_as = ""
        """The description of its unit, once it has been reported as a long one."""

    def returned(self) -> None:
        """Record that the connection is returned; called again, it does nothing."""
        if self.returned_at is not None:
            return
        self.returned_at = now = time.monotonic()
        if self.idle_since is not None:
            gap = now - self.idle_since
            self.idle += gap
            self.longest_idle = max(self.longest_idle, gap)
            self.idle_since = None
        if self.report is not None:
            self.report.returned(now - self.taken_at, self.idle)
        if self.reported_as:
            held = self.describe(self.reported_as)
            log.info("returned: %s", held, extra=held.fields)

    def times(self) -> tuple[float, float, float]:
        """How long it was held until now, how much of it idle, and at once at most."""
        now = self.returned_at or time.monotonic()
        gap = 0.0 if (since := self.idle_since) is None else now - since
        return now - self.taken_at, self.idle + gap, max(self.longest_idle, gap)

    def describe(self, unit: str) -> HeldConnection:
        """What is known now; *unit* is its description."""
        held, idle, _ = self.times()
        site = format_call_site(self.call_site)
        return HeldConnection(unit, held, idle, self.statement, site)


@dataclass(frozen=True, slots=True)
class HeldConnection:
    """One connection that a unit holds, or has held. Times are in seconds."""

    unit: str
    held: float
    idle: float
    statement: str
    call_site: str

    @property
    def fields(self) -> dict[str, object]:
        """The attributes of its log records."""
        return {
            "unitwork_held": self.held,
            "unitwork_idle": self.idle,
            "unitwork_call_site": self.call_site,
        }

    def __str__(self) -> str:
        where = f", taken at {self.call_site}" if self.call_site else ""
        what = shortened(self.statement)
        return (
            f"{self.unit} for {self.held:.1f} seconds ({self.idle:.1f} of them idle in "
            f"its transaction){where}" + (f", last statement: {what}" if what else "")
        )


NO_USE = ConnectionUse()


def use_of(holds: Iterable[Hold], before: ConnectionUse) -> ConnectionUse:
    """Add *holds* to those *before*."""
    count, held, idle, longest = before.connections, before.held, before.idle, 0.0
    pools = before.pools
    for hold in holds:
        its_time, its_idle, its_longest = hold.times()
        count, held, idle = count + 1, held + its_time, idle + its_idle
        longest = max(longest, its_longest)
        if (report := hold.report) is not None and report.pool not in pools:
            pools = (*pools, report.pool)
    longest = max(longest, before.longest_idle)
    return ConnectionUse(count, held, idle, longest, pools)
