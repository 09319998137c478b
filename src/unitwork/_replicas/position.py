"""Positions in what a primary has written, and tokens, which carry them to a client."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

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

    *at* is a log sequence number of PostgreSQL; `None`: it is not known, and only the
    primary is sure to show them. After *until*, in Unix time, each replica that is in
    use has replayed them: it would lag too far behind otherwise.
    """

    at: int | None
    until: float


Positions = Mapping[str, Position]
"""By the names of the databases."""
NO_POSITIONS: Positions = MappingProxyType({})
ON_THE_PRIMARY = Position(None, math.inf)


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
        known = found.at is not None and each.at is not None
        at = max(found.at or 0, each.at or 0) if known else None
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
        f"{name.encode().hex()}.{'' if at is None else f'{at:x}'}.{int(until) + 1:x}"
        for name, (at, until) in positions.items()
    )


def decode(token: str) -> Positions:
    """The positions of a *token*; raises `UsageError` if it is none."""
    found: dict[str, Position] = {}
    try:
        for part in token.split("~") if token else ():
            name, at, until = part.split(".")
            position = Position(int(at, 16) if at else None, float(int(until, 16)))
            found[bytes.fromhex(name).decode()] = position
    except (TypeError, ValueError, OverflowError):
        raise UsageError(
            f"{token!r} is no token; give what `current_unit().token` has returned"
        ) from None
    return found
