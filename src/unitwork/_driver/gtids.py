"""Positions in the log of a primary, which replicas replay.

Source: MariaDB, "Global Transaction ID": within a domain the sequence numbers rise, and
a replica commits in their order.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Gtid", "Gtids", "LogPosition", "covers", "latest_of", "read_gtids"]

_GTID = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})", re.ASCII)


class Gtid(NamedTuple):
    """The global id of a transaction of MariaDB."""

    domain: int
    server: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.sequence}"


class Gtids(NamedTuple):
    """The last transaction of each domain, in the order of the domains."""

    ids: tuple[Gtid, ...]

    def __str__(self) -> str:
        """As MariaDB writes a position."""
        return ",".join(map(str, self.ids))


LogPosition = int | Gtids
"""A log sequence number of PostgreSQL, or global transaction ids of MariaDB."""


def read_gtids(text: str, separator: str = ",") -> Gtids | None:
    """The position that *text* is; `None` if it is none, or empty.

    Has the latest id of each domain.
    """
    found: dict[int, Gtid] = {}
    for part in text.split(separator):
        match = _GTID.fullmatch(part.strip())
        if match is None:
            return None
        domain, server, sequence = map(int, match.groups())
        if max(domain, server) >= 2**32 or sequence >= 2**64:
            return None
        if domain not in found or found[domain].sequence < sequence:
            found[domain] = Gtid(domain, server, sequence)
    return Gtids(tuple(found[domain] for domain in sorted(found)))


def covers(reached: LogPosition | None, needed: LogPosition) -> bool:
    """Whether who has replayed up to *reached* has replayed what is *needed*."""
    if isinstance(reached, int) and isinstance(needed, int):
        return reached >= needed
    if isinstance(reached, Gtids) and isinstance(needed, Gtids):
        last = {each.domain: each.sequence for each in reached.ids}
        return all(last.get(each.domain, -1) >= each.sequence for each in needed.ids)
    return False


def latest_of(
    first: LogPosition | None, second: LogPosition | None
) -> LogPosition | None:
    """The position that covers both; `None` if one is not known, or of another kind."""
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    if isinstance(first, Gtids) and isinstance(second, Gtids):
        return read_gtids(f"{first},{second}")
    return None
