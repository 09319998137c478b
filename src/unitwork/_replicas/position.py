"""Positions in what a primary has written, and tokens, which carry them to a client."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from .._driver.gtids import LogPosition, latest_of, read_gtids
from .._driver.wal_position import WalPosition
from ..errors import UsageError

__all__ = [
    "NO_POSITIONS",
    "ON_THE_PRIMARY",
    "Position",
    "Positions",
    "decode",
    "encode",
    "latest",
    "merged",
]


class Position(NamedTuple):
    """Up to where a client has to see the writes of one database.

    *at* is `None` if the position is not known: only the primary is sure to show them.
    After *until*, in Unix time, each replica that is in use has replayed them: it would
    lag too far behind otherwise.
    """

    at: LogPosition | None
    until: float


Positions = Mapping[str, Position]
"""By the names of the databases."""
NO_POSITIONS: Positions = MappingProxyType({})
ON_THE_PRIMARY = Position(None, math.inf)
_NEXT_DOMAIN = "_"
"""Between ids of MariaDB: a comma would end the value of a cookie."""


def latest(positions: Iterable[Position]) -> Position | None:
    """The one that covers all *positions* which still count; `None`: there is none."""
    now = time.time()
    found: Position | None = None
    for each in positions:
        if each.until <= now:
            continue
        if found is None:
            found = each
            continue
        at = latest_of(found.at, each.at)
        found = Position(at, max(found.until, each.until))
    return found


def merged(first: Positions, second: Positions) -> Positions:
    """The positions that cover both, of those that still count."""
    found: dict[str, Position] = {}
    for name in {**first, **second}:
        both = [each[name] for each in (first, second) if name in each]
        if (position := latest(both)) is not None:
            found[name] = position
    return found


def encode(positions: Positions) -> str:
    """The token of *positions*: text without blanks, quotes and commas."""
    return "~".join(
        f"{name.encode().hex()}.{_written(at)}.{int(until) + 1:x}"
        for name, (at, until) in positions.items()
    )


def _written(at: LogPosition | None) -> str:
    if at is None:
        return ""
    if isinstance(at, WalPosition):
        return ":".join(f"{part:x}" for part in at)
    return str(at).replace(",", _NEXT_DOMAIN)


def _read(text: str) -> LogPosition:
    if ":" in text:
        system, timeline, lsn = text.split(":")
        return WalPosition(int(system, 16), int(timeline, 16), int(lsn, 16))
    gtids = read_gtids(text, _NEXT_DOMAIN)
    if gtids is None:
        raise ValueError(text)
    return gtids


def decode(token: str) -> Positions:
    """The positions of a *token*; raises `UsageError` if it is none."""
    found: dict[str, Position] = {}
    try:
        for part in token.split("~") if token else ():
            name, at, until = part.split(".")
            position = Position(_read(at) if at else None, float(int(until, 16)))
            found[bytes.fromhex(name).decode()] = position
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{token!r} is no token; give what `current_unit().token` has returned"
        ) from None
    return found
