"""The names of prepared transactions: xids, as psycopg and the XA standard say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

__all__ = ["Xid", "fingerprint"]

_OURS = "unitwork"


class Xid(NamedTuple):
    """The name of a prepared transaction: `unitwork-<set>-<unit>-<witness>-<place>`.

    *databases* tells the set of databases apart from those of other applications,
    *unit* the units; *witness* and *place* count the databases in their order, from 1:
    that which is prepared first and commits first, and the branch's own.
    """

    databases: str
    unit: str
    witness: int
    place: int

    def __str__(self) -> str:
        return "-".join(map(str, (_OURS, *self)))

    @classmethod
    def read(cls, name: str) -> Xid | None:
        """Read what `str()` has made; `None` if it is somebody else's."""
        ours, *parts = name.split("-")
        if ours != _OURS or len(parts) != 4 or not all(p.isdigit() for p in parts[2:]):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))


def fingerprint(databases: Sequence[tuple[str, Engine]]) -> str:
    """What two applications on one server differ in, unless they are the same one."""
    told = [f"{name}={engine.url.database}" for name, engine in databases]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:8]
