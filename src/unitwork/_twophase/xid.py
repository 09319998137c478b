"""The names of prepared transactions: xids, as in psycopg and the XA standard."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Engine

__all__ = ["Xid", "fingerprint"]

_OURS = "unitwork"


class Xid(NamedTuple):
    """The name of a prepared transaction: `unitwork-<set>-<unit>-<witness>-<position>`.

    *databases* identifies the set of databases of an application, *unit* the unit.
    *witness* and *position* number the databases in their order, from 1: the one that
    is prepared and committed first, and that of this transaction.
    """

    databases: str
    unit: str
    witness: int
    position: int

    def __str__(self) -> str:
        return "-".join(map(str, (_OURS, *self)))

    @classmethod
    def read(cls, name: str) -> Xid | None:
        """Parse what `str()` has made; `None` if the name is not of unitwork."""
        ours, *parts = name.split("-")
        if ours != _OURS or len(parts) != 4 or not all(p.isdigit() for p in parts[2:]):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))


def fingerprint(databases: Sequence[tuple[str, Engine]]) -> str:
    """A hash of the database names: it differs between applications on one server."""
    named = [f"{name}={engine.url.database}" for name, engine in databases]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:8]
