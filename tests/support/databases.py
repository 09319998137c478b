"""The databases of the tests: where they are, how they begin, and how they must end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url

from support.flavours import FLAVOURS, MARIADB, Flavour, Observer, connect_mariadb
from support.models import create_tables
from unitwork.testing import check_idle


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
    check_idle(flavour.db)
    assert Observer(flavour.url).in_transaction() == []
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    ours = [t for t in tasks if "unitwork" in repr(t.get_coro())]
    assert not ours, f"tasks are left: {ours}"
