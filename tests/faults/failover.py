"""Primaries are killed and replicas promoted under load: is any client told a lie?

    make failover N=20 DRIVERS="asyncpg psycopg psycopg-async"

Replication is synchronous, and the application has one URL with all hosts. Clients
write without a pause, each row with a key of its own, and note the responses.
After each failover the table on the new primary is compared with the notes.

lie: success was reported, and the row is missing. ghost: a failure was reported, and
the row is stored. double: it is stored twice. late: no write succeeds within a second
after the promotion.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from sqlalchemy import make_url

from faults.tables import Outsider, plain_url
from faults.workload import application
from servers.postgresql_replication import Replication
from support import outside
from support.asgi import call
from support.flavours import FLAVOURS, POSTGRESQL, Flavour, kind_of
from support.pool import eventually
from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    DBSessionMiddleware,
    LogPositionVerifier,
    transactional,
)

CLIENTS = 8
BEFORE = 60
"""Writes that are acknowledged before the next primary is killed, at least."""
SETTINGS = DatabaseSettings(end_timeout=1.0, commit_timeout=5.0, verify_timeout=10.0)
VERIFYING = DatabaseSettings(
    end_timeout=1.0,
    commit_timeout=5.0,
    verify_timeout=10.0,
    verify_commit=LogPositionVerifier(),
)


COLUMNS = [
    *("verifier", "failovers", "stored", "failed", "unknown", "wrong", "late"),
    *("longest promotion", "longest wait after it"),
]


@dataclass
class Notes:
    """The responses that clients got for their keys."""

    stored: set[str] = field(default_factory=set)
    failed: dict[str, BaseException | None] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    last_stored: float = 0.0
    """When the last of the writes began that were acknowledged."""

    def wrong(self, table: Counter[str]) -> list[str]:
        """The violations; empty at best."""
        return [
            *(f"lie: {key}" for key in sorted(self.stored) if not table[key]),
            *(
                f"ghost: {key} {self.failed[key]!r}"
                for key in self.failed
                if table[key]
            ),
            *(f"double: {key}" for key, times in table.items() if times > 1),
        ]


@dataclass
class Report:
    failovers: int = 0
    notes: Notes = field(default_factory=Notes)
    wrong: list[str] = field(default_factory=list)
    downtimes: list[float] = field(default_factory=list)
    """From each promotion on, the seconds until a write has succeeded."""
    promotions: list[float] = field(default_factory=list)
    """How long each failover itself has taken, in seconds."""


def multi_host(driver: str, servers: Replication) -> str:
    """The URL with all *servers*, of which the driver takes the primary."""
    urls = [make_url(servers.first_primary_url), *map(make_url, servers.replica_urls)]
    first, hosts = urls[0], [f"{url.host}:{url.port}" for url in urls]
    asked = {"target_session_attrs": "read-write"}
    url = first.set(drivername=FLAVOURS[driver], host=None, port=None)
    url = url.update_query_dict({"host": hosts} | asked)
    return plain_url(url.render_as_string(False), FLAVOURS[driver])


@dataclass
class Load:
    """Clients that write, one request after the other."""

    app: FastAPI
    notes: Notes
    stopping: bool = False
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def client(self, path: str) -> None:
        notes = self.notes
        while not self.stopping:
            key, began = f"{next(self.numbers)}", time.monotonic()
            reply = await call(self.app, "POST", f"/{path}/{key}")
            if reply.status == 200:
                notes.stored.add(key)
                notes.last_stored = max(notes.last_stored, began)
                continue
            if isinstance(reply.error, CommitUnknownError):
                notes.unknown.add(key)
            else:
                notes.failed[key] = reply.error
            await asyncio.sleep(0.005)  # a client that has failed is in no hurry


@asynccontextmanager
async def load(
    driver: str, servers: Replication, settings: DatabaseSettings
) -> AsyncIterator[Load]:
    url = multi_host(driver, servers)
    options: dict[str, Any] = {"pool_size": CLIENTS, "max_overflow": 0}
    db: Any = kind_of(driver)(url, settings=settings, **options)
    app = application(Flavour(driver, url, db))
    for route in app.router.routes:
        if getattr(route, "path", "") == "/{name}/{key}":
            app.post("/again/{name}/{key}")(
                transactional(attempts=20)(route.endpoint)  # type: ignore[attr-defined]  # it has one
            )
    app.add_middleware(DBSessionMiddleware, db=db, answer_errors=False)
    load = Load(app, Notes())
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            path = "insert" if number % 2 else "again/insert"
            clients.create_task(load.client(path))
        try:
            yield load
        finally:
            load.stopping = True
    if (result := db.dispose()) is not None:
        await result


async def run(
    driver: str,
    servers: Replication,
    failovers: int,
    settings: DatabaseSettings = SETTINGS,
) -> Report:
    """Let a number of *failovers* happen; give what was reported to clients."""
    report = Report()
    await to_thread.run_sync(Outsider(servers.primary_url).create)
    await to_thread.run_sync(servers.set_synchronous, True)
    async with load(driver, servers, settings) as clients:
        report.notes = clients.notes
        for _ in range(failovers):
            await _fail_over(servers, clients.notes, report)
    report.wrong += clients.notes.wrong(Outsider(servers.primary_url).keys())
    outside.disconnect()
    return report


async def _fail_over(servers: Replication, notes: Notes, report: Report) -> None:
    enough = len(notes.stored) + BEFORE
    await eventually(lambda: len(notes.stored) >= enough)
    began = time.monotonic()
    await to_thread.run_sync(servers.fail_over)
    promoted = time.monotonic()
    await eventually(lambda: notes.last_stored > promoted)
    report.failovers += 1
    report.promotions.append(promoted - began)
    report.downtimes.append(notes.last_stored - promoted)
    before = set(notes.stored), dict(notes.failed)
    table = await to_thread.run_sync(Outsider(servers.primary_url).keys)
    report.wrong += Notes(before[0], before[1]).wrong(table)
    await to_thread.run_sync(servers.rejoin)
    await to_thread.run_sync(servers.set_synchronous, True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make failover", description=__doc__)
    parser.add_argument("--failovers", type=int, default=20)
    parser.add_argument("--drivers", default=" ".join(POSTGRESQL))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    wrong = False
    print(
        "| | verifier | failovers | stored | failed | unknown | wrong | late |", end=""
    )
    print(" longest promotion | longest wait after it |\n|" + "---|" * 10)
    for driver in arguments.drivers.split():
        for name, settings in {"True": SETTINGS, "log position": VERIFYING}.items():
            with Replication(replicas=2) as servers:
                report = asyncio.run(
                    run(driver, servers, arguments.failovers, settings)
                )
            late = sum(each > 1 for each in report.downtimes)
            wrong = wrong or bool(report.wrong) or late > 0
            notes = report.notes
            counts = [report.failovers, len(notes.stored), len(notes.failed)]
            counts += [len(notes.unknown), len(report.wrong), late]
            times = [max(report.promotions), max(report.downtimes)]
            shown = [*map(str, counts), *(f"{each:.2f} s" for each in times)]
            print(f"| {driver} | {name} | " + " | ".join(shown) + " |", flush=True)
            print(*report.wrong[:20], sep="\n", file=sys.stderr)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
