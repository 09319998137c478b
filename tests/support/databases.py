"""The databases of the tests: where they are, how they begin, and how they must end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url

from support.flavours import FLAVOURS, MARIADB, Flavour, Observer, connect_mariadb
from support.models import create_tables


def url_of(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if "sqlite" in name:
        return f"{FLAVOURS[name]}:///{tmp_path}/test.db"
    fixture = "mariadb" if name in MARIADB else "postgresql"
    server = make_url(request.getfixturevalue(fixture))
    url = server.set(drivername=FLAVOURS[name])
    if name == "pymysql":  # to prepare for TLS takes it longer than most of the tests
        url = url.update_query_dict({"ssl_disabled": "true"})
    return url.render_as_string(hide_password=False)


def empty_tables(url: str) -> None:
    """Create the tables of an SQLite file, empty those of a server."""
    made = make_url(url)
    backend = made.get_backend_name()
    if backend == "sqlite":
        create_tables(create_engine(made.set(drivername=backend), poolclass=NullPool))
    elif backend == "mysql":
        with connect_mariadb(made) as connection:
            connection.query("SET lock_wait_timeout = 10")
            connection.query("TRUNCATE item")
    else:
        plain = made.set(drivername=backend).render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("TRUNCATE item, child RESTART IDENTITY")


async def check_nothing_is_left(flavour: Flavour) -> None:
    """No connection checked out, none idle in transaction, no unit, no task."""
    status = flavour.db.pool_status()
    assert status.checked_out == 0, f"a connection leaked: {status}"
    assert status.waiting == 0, f"a unit still waits: {status}"
    assert not flavour.db._source._units, "a unit was not ended"
    assert Observer(flavour.url).in_transaction() == []
    gate = flavour.db._source.factory.gate
    assert gate is None or gate._free == gate.size, "a place was not given back"
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    ours = [t for t in tasks if "unitwork" in repr(t.get_coro())]
    assert not ours, f"tasks are left: {ours}"
