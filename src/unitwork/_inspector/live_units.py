"""The units that are open now, as JSON.

What is read belongs to tasks and threads that go on meanwhile: a unit may end while it
is looked at. Nothing is locked and nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect

from .._call_site import format_call_site
from .._driver.backend_id import backend_id
from .._session.database_core import DatabaseCore
from .._session.unit_session import UnitSession
from .._transaction.hold import Hold
from .._transaction.loan import Loan
from .._unit.unit import Unit
from .clock import Clock
from .locks import Blocker, Found
from .phase import phase_of
from .record import name_of
from .statement_text import shown

__all__ = ["Held", "LiveUnits", "OpenUnit", "open_units", "owners_of"]


Pools = Mapping[Dialect, str]
"""The names of the pools, by the dialects of their engines."""
Owners = Mapping[tuple[str, int], int | None]
"""The units that hold connections: by the database and the id of the connection."""
Blockers = tuple[tuple[Blocker, ...], ...]
"""What blocks each connection of a unit; empty if none is blocked."""


class Held(NamedTuple):
    """A connection that a unit holds now."""

    database: str
    pool: str
    """The name of its pool; empty if it is one that the inspector does not know."""
    hold: Hold
    pid: int | None
    """Its id on the server of the database; `None` on another server, as a replica."""
    idle_since: float | None
    """`None`: a statement is under way."""


class OpenUnit(NamedTuple):
    """One unit as it was at a moment, and the connections that it holds."""

    unit: Unit
    phase: str
    about: str
    held: tuple[Held, ...]


def open_units(
    databases: Iterable[DatabaseCore],
    pools: Pools,
    is_own: Callable[[str], bool],
    before: Mapping[Unit, OpenUnit],
) -> list[OpenUnit]:
    """The units that have a session of one of *databases*, the oldest first.

    Not those of requests whose path *is_own*, the inspector's. *before* is how
    they were at the last look, which spares the most of the work if nothing happens.
    """
    found: dict[Unit, None] = {}
    for database in databases:
        found.update(dict.fromkeys(cast("set[Unit]", database.open_units.copy())))
    looked_at = [
        _look_at(unit, pools, before.get(unit))
        for unit in sorted(found, key=_began)
        if unit.report is None or not is_own(unit.report.unit.path)
    ]
    return looked_at


def _began(unit: Unit) -> float:
    report = unit.report
    return 0.0 if report is None else report.unit.started


def _look_at(unit: Unit, pools: Pools, before: OpenUnit | None) -> OpenUnit:
    sessions = list(unit.sessions)
    phase, about = phase_of(unit, sessions)
    if (
        before is not None
        and (phase, about) == (before.phase, before.about)
        and _holds(sessions, before.held)
    ):
        return before
    held = [
        _held(session.name, connection, loan, loan.hold, pools)
        for session in sessions
        for connection, loan in zip(
            list(session.connections), list(session.loans), strict=False
        )
        if loan.hold is not None and loan.hold.returned_at is None
    ]
    return OpenUnit(unit, phase, about, tuple(held))


def _holds(sessions: Iterable[UnitSession], held: Sequence[Held]) -> bool:
    """Whether *sessions* hold what they held before, and did nothing since."""
    at = 0
    for session in sessions:
        for loan in session.loans:
            hold = loan.hold
            if hold is None or hold.returned_at is not None:
                continue
            if at >= len(held) or held[at].hold is not hold:
                return False
            if held[at].idle_since != hold.idle_since:
                return False
            at += 1
    return at == len(held)


def _held(
    name: str, connection: Connection, loan: Loan, hold: Hold, pools: Pools
) -> Held:
    pool = pools.get(connection.dialect, "")
    pid = backend_id(loan.driver_connection) if pool == name else None
    return Held(name, pool, hold, pid, hold.idle_since)


class LiveUnits:
    """Writes open units as JSON; only what has changed is written again.

    All times are absolute, so that a unit which does nothing has the same text as
    before: many units may be looked at often.
    """

    def __init__(
        self, clock: Clock, dialect_of: Callable[[str], str], *, show_sql: bool
    ) -> None:
        self._clock = clock
        self._dialect_of = dialect_of
        """The name of the dialect of a database, by that of the database."""
        self._show_sql = show_sql
        self._before: dict[Unit, OpenUnit] = {}
        self._texts: dict[Unit, tuple[object, str]] = {}

    def look(
        self,
        databases: Iterable[DatabaseCore],
        pools: Pools,
        is_own: Callable[[str], bool],
    ) -> list[OpenUnit]:
        """The units that are open now: see `open_units()`."""
        units = open_units(databases, pools, is_own, self._before)
        self._before = {each.unit: each for each in units}
        return units

    def describe(
        self, units: Iterable[OpenUnit], found: Mapping[str, Found], owners: Owners
    ) -> str:
        """A JSON array of *units*; *found* are the lock waits of each database."""
        before, self._texts = self._texts, {}
        texts = []
        is_blocked = any(found.values())
        for each in units:
            blockers = _blockers_of(each, found) if is_blocked else ()
            report = each.unit.report
            key = each, blockers, None if report is None else report.unit.route
            known, text = before.get(each.unit, (None, ""))
            if known != key:
                text = json.dumps(self._as_json(each, blockers, owners))
            self._texts[each.unit] = key, text
            texts.append(text)
        return f"[{','.join(texts)}]"

    def _as_json(
        self, each: OpenUnit, blockers: Blockers, owners: Owners
    ) -> dict[str, Any]:
        unit, report = each.unit, each.unit.report
        known: dict[str, Any] = {"id": None, "name": unit.owner.description}
        if report is not None:
            info = report.unit
            known = {
                "id": info.id,
                "name": name_of(info),
                "kind": info.kind,
                "path": info.path,
                "parent": info.parent,
                "attempt": info.attempt,
                "began": self._clock.wall(info.started),
            }
        return {
            **known,
            "phase": each.phase,
            "about": each.about,
            "connections": [
                self._connection(held, blocked_by, owners)
                for held, blocked_by in zip(
                    each.held, blockers or repeat(()), strict=False
                )
            ],
        }

    def _connection(
        self, held: Held, blocked_by: Iterable[Blocker], owners: Owners
    ) -> dict[str, Any]:
        hold, since = held.hold, held.idle_since
        found: dict[str, Any] = {
            "database": held.database,
            "pool": held.pool,
            "taken": self._clock.wall(hold.taken_at),
            "idle_since": None if since is None else self._clock.wall(since),
            "idle_before": round(hold.idle, 3),
            "at": format_call_site(hold.call_site),
            "pid": held.pid,
            "blocked_by": [
                {**each._asdict(), "unit": owners.get((held.database, each.pid))}
                for each in blocked_by
            ],
        }
        if self._show_sql:
            found["sql"] = shown(hold.statement, self._dialect_of(held.database))
        return found


def _blockers_of(each: OpenUnit, found: Mapping[str, Found]) -> Blockers:
    return tuple(
        tuple(found.get(held.database, {}).get(held.pid or 0, ())) for held in each.held
    )


def owners_of(units: Iterable[OpenUnit]) -> dict[tuple[str, int], int | None]:
    """Which unit holds the connection with an id, as the server knows it."""
    return {
        (held.database, held.pid): None
        if (r := each.unit.report) is None
        else r.unit.id
        for each in units
        for held in each.held
        if held.pid is not None
    }
