"""Positions in the log of a primary, which replicas replay; those of MariaDB.

Sources: MariaDB, "Global Transaction ID" and "gtid_binlog_state": within a domain the
sequence numbers of a server rise, and a replica commits in their order. After a
failover two servers may have used the same numbers, for different transactions.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .._patterns import pattern
from .wal_position import WalPosition

__all__ = [
    "Gtid",
    "Gtids",
    "LogPosition",
    "can_reach",
    "covers",
    "latest_of",
    "read_gtids",
]

_GTID = pattern(r"(\d{1,10})-(\d{1,10})-(\d{1,20})", re.ASCII)


class Gtid(NamedTuple):
    """The global id of a transaction of MariaDB."""

    domain: int
    server: int
    sequence: int

    def __str__(self) -> str:
        return f"{self.domain}-{self.server}-{self.sequence}"


class Gtids(NamedTuple):
    """The last transaction of each server in each domain, in this order."""

    ids: tuple[Gtid, ...]

    def __str__(self) -> str:
        """As MariaDB writes them in `gtid_binlog_state`."""
        return ",".join(map(str, self.ids))

    @property
    def position(self) -> str:
        """The last one of each domain, as in `gtid_slave_pos`."""
        last = {each.domain: each for each in sorted(self.ids, key=_by_sequence)}
        return ",".join(map(str, last.values()))


LogPosition = WalPosition | Gtids
"""Of PostgreSQL, or global transaction ids of MariaDB."""


def read_gtids(text: str, separator: str = ",") -> Gtids | None:
    """The position that *text* is; `None` if it is none, or empty."""
    found: dict[tuple[int, int], Gtid] = {}
    for part in text.split(separator):
        match = _GTID.fullmatch(part.strip())
        if match is None:
            return None
        domain, server, sequence = map(int, match.groups())
        if max(domain, server) >= 2**32 or sequence >= 2**64:
            return None
        last = found.get((domain, server))
        if last is None or last.sequence < sequence:
            found[domain, server] = Gtid(domain, server, sequence)
    return Gtids(tuple(found[key] for key in sorted(found)))


def _by_sequence(gtid: Gtid) -> int:
    return gtid.sequence


def covers(reached: LogPosition | None, needed: LogPosition) -> bool:
    """Whether who has replayed up to *reached* has replayed what is *needed*."""
    if isinstance(reached, WalPosition) and isinstance(needed, WalPosition):
        return needed.is_on(reached) and reached.lsn >= needed.lsn
    if isinstance(reached, Gtids) and isinstance(needed, Gtids):
        last = {(each.domain, each.server): each.sequence for each in reached.ids}
        return all(
            last.get((each.domain, each.server), -1) >= each.sequence
            for each in needed.ids
        )
    return False


def can_reach(reached: LogPosition | None, needed: LogPosition) -> bool:
    """Whether who has replayed up to *reached* can replay what is *needed* later."""
    if isinstance(reached, WalPosition) and isinstance(needed, WalPosition):
        return needed.is_on(reached)
    return isinstance(reached, Gtids) and isinstance(needed, Gtids)


def latest_of(
    first: LogPosition | None, second: LogPosition | None
) -> LogPosition | None:
    """The position that covers both; `None` if there is none, or one is not known.

    What an earlier timeline has behind the begin of a later one is lost, on it.
    """
    if isinstance(first, WalPosition) and isinstance(second, WalPosition):
        return max(first, second) if first.system == second.system else None
    if isinstance(first, Gtids) and isinstance(second, Gtids):
        return read_gtids(f"{first},{second}")
    return None
