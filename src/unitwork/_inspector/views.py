"""The data of each view, as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from .._session.database_core import DatabaseCore
from .clock import Clock
from .history import History
from .live_units import LiveUnits, OpenUnit, owners_of
from .locks import Found, Locks
from .pools import describe_pools, names_of_pools, pools_of
from .record import UnitRecord
from .recorder import Recorder
from .response import JSON, Response

__all__ = ["Views"]

_SLOW = 0.2  # seconds that a connection was used, before its server is queried
_NO_UNIT = b'{"detail": "this unit is not known, or not any more"}'


class Views:
    """What the pages show, computed for each request. Read-only."""

    def __init__(
        self, databases: Sequence[DatabaseCore], recorder: Recorder, *, show_sql: bool
    ) -> None:
        self._databases = databases
        self._recorder = recorder
        self._clock = clock = Clock()
        self._began = clock.now()
        self._live = LiveUnits(clock, recorder.dialect_of, show_sql=show_sql)
        self._history = History(clock)
        self._locks: dict[str, Locks] = {}

    async def live(self) -> Response:
        """The open units, and the pools."""
        pools = pools_of(self._databases)
        is_own = self._recorder.is_own
        units = self._live.look(self._databases, names_of_pools(pools), is_own)
        found = {
            each.name: await self._lock_waits(each, units) for each in self._databases
        }
        described_pools = describe_pools(pools, units)
        for pool in described_pools:
            locks = self._locks.get(pool["name"])
            pool["lock_query"] = "" if locks is None else locks.trouble
        head = json.dumps({**self._head(), "databases": described_pools})
        owners = owners_of(units) if any(found.values()) else {}
        described = self._live.describe(units, found, owners)
        return Response(f'{head[:-1]}, "units": {described}}}'.encode(), JSON)

    def timeline(self, query: Mapping[str, str]) -> Response:
        """The recorded units, by *route* and *outcome*; or those changed *since*."""
        version = self._recorder.version  # first: what changes now is shown again
        records = [x for x in self._recorder.records() if _matches(x, query)]
        since = query.get("since", "")
        known = int(since) if since.isascii() and since.isdigit() else 0
        return _response(
            {
                **self._head(),
                "version": version,
                "routes": self._recorder.names(),
                "units": [
                    self._history.in_short(each)
                    for each in records
                    if each.version > known or each.ended_at is None
                ],
                "kept": [each.info.id for each in records],
            }
        )

    def unit(self, number: int) -> Response:
        """One recorded unit, with all that happened."""
        record = self._recorder.find(number)
        if record is None:
            return Response(_NO_UNIT, JSON, HTTPStatus.NOT_FOUND)
        children = self._recorder.children_of(number)
        return _response(
            {**self._head(), "unit": self._history.in_full(record, children)}
        )

    def outcomes(self) -> Response:
        """Counts and times for each route."""
        outcomes = self._recorder.outcomes
        routes, reasons = outcomes.routes(), outcomes.reasons(self._clock.offset)
        return _response({**self._head(), "routes": routes, "reasons": reasons})

    def _head(self) -> dict[str, Any]:
        now = self._clock.now()
        return {"process": os.getpid(), "now": now, "recording_since": self._began}

    async def _lock_waits(self, database: DatabaseCore, units: list[OpenUnit]) -> Found:
        """What blocks the connections that have been in a statement for some time."""
        engine = database.known_engine
        if engine is None:
            return {}
        locks = self._locks.get(database.name)
        if locks is None or locks.engine is not engine:
            locks = self._locks[database.name] = Locks(engine)
        long_ago = time.monotonic() - _SLOW
        await locks.refresh(
            {
                held.pid
                for each in units
                for held in each.held
                if held.database == database.name
                and held.pid is not None
                and held.idle_since is None
                and held.hold.taken_at < long_ago
            }
        )
        return locks.found


def _matches(record: UnitRecord, query: Mapping[str, str]) -> bool:
    route, outcome = query.get("route", ""), query.get("outcome", "")
    if route and record.name != route:
        return False
    if outcome == "open":
        return record.ended_at is None
    if outcome == "retried":
        return record.is_retried or record.info.attempt > 1
    return not outcome or (
        record.outcome is not None and record.outcome.value == outcome
    )


def _response(data: Mapping[str, Any]) -> Response:
    return Response(json.dumps(data).encode(), JSON)
