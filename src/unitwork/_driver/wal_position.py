"""Positions in the log of PostgreSQL, and which history they belong to.

After a promotion the log goes on as another timeline, from the position that the new
primary had reached. Another server may have gone further on the old one: its position
is higher, and still it lacks what follows. Each installation has a log of its own.

Sources: PostgreSQL, "Timelines", "pg_lsn Type" and "Control Data Functions".
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "WalPosition",
    "position_query",
    "read_lsn",
    "read_wal_position",
    "short_system",
]

_AT = (
    "concat_ws('|', pg_current_wal_insert_lsn(), "
    "left(pg_walfile_name(pg_current_wal_insert_lsn()), 8){})"
)
_SYSTEM = 0xFFFF_FFFF
"""The part of a system identifier that differs between any two: tokens stay short."""


class WalPosition(NamedTuple):
    """A position in the log, on one timeline of one system."""

    system: int
    timeline: int
    lsn: int

    def is_on(self, history: WalPosition) -> bool:
        """Whether it is on the timeline of *history*, or on an earlier one."""
        return self.system == history.system and self.timeline <= history.timeline


def position_query(system: int | None, *, before: str = "") -> str:
    """Selects up to where a primary has written, and *before* it another value.

    Without the *system*, if that is known: the server would read it from a file.
    """
    at, source = _AT.format(""), ""
    if system is None:
        at, source = _AT.format(", system_identifier"), " FROM pg_control_system()"
    if before:
        at = f"concat_ws('|', {before}, {at})"
    return f"SELECT {at}{source}"


def read_wal_position(text: str, system: int | None) -> WalPosition | None:
    """The position that `position_query()` has selected; `None` if it is none."""
    lsn, _, rest = text.partition("|")
    timeline, _, identifier = rest.partition("|")
    try:
        system = short_system(identifier) if system is None else system & _SYSTEM
        return WalPosition(system, int(timeline, 16), read_lsn(lsn))
    except ValueError:  # of a server that only resembles PostgreSQL
        return None


def read_lsn(text: str) -> int:
    """The position that *text* is, as PostgreSQL writes it; raises `ValueError`."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def short_system(identifier: str) -> int:
    """What a token has of a system *identifier*; raises `ValueError`."""
    return int(identifier) & _SYSTEM
