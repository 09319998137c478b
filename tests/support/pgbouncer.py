"""The database of a test, through the PgBouncer that the launcher has started."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.databases import check_nothing_is_left
from support.flavours import Flavour
from unitwork import DatabaseSettings

CLIENTS = 20
SERVERS = 2
BEHIND = DatabaseSettings(end_timeout=0.2, transaction_pooler=True)


@pytest.fixture(scope="session")
def pgbouncer() -> str:
    """The URL of the PgBouncer that the launcher has started, if there is one."""
    url = os.environ.get("UNITWORK_TEST_PGBOUNCER")
    if url is None:
        missing = "no PgBouncer: apt install pgbouncer, and run `make test`"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return url


def through_pgbouncer(flavour: Flavour, pgbouncer: str, **settings: Any) -> Flavour:
    ours = make_url(flavour.url)
    there = make_url(pgbouncer).set(drivername=ours.drivername, database=ours.database)
    pooled = replace(flavour, url=there.render_as_string(hide_password=False)).another(
        pool_size=CLIENTS,
        max_overflow=0,
        settings=replace(BEHIND, **settings),
    )
    pooled.url = flavour.url
    return pooled


@pytest.fixture
async def pooled(flavour: Flavour, pgbouncer: str) -> AsyncIterator[Flavour]:
    """The same database, through PgBouncer; its URL is that of the server itself."""
    pooled = through_pgbouncer(flavour, pgbouncer)
    yield pooled
    await check_nothing_is_left(pooled)
    await pooled.dispose()


def pid(session: Session) -> int:
    return int(session.scalars(text("SELECT pg_backend_pid()")).one())


async def on_every_server(flavour: Flavour, body: Callable[[Session], Any]) -> Any:
    """Run *body* on each of the server connections at the same time."""
    async with flavour.block() as one, flavour.block(nested="own") as two:
        sessions = (one, two)
        pids = {await flavour.do(session, pid) for session in sessions}
        assert len(pids) == SERVERS
        return [await flavour.do(session, body) for session in sessions]
