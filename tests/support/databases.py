"""The databases of the tests: where they are, how they begin, and how they must end."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from support import outside
from support.flavours import FLAVOURS, MARIADB, Flavour, Observer, connect_mariadb
from support.models import create_tables
from support.pool import eventually
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


EMPTY = """
    SET LOCAL lock_timeout = '10s';
    DELETE FROM child;
    DELETE FROM item;
    SELECT setval('child_id_seq', 1, false), setval('item_id_seq', 1, false)
"""
"""Half of the time of TRUNCATE, which makes new files."""


def empty_tables(url: str) -> None:
    """Create the tables of an SQLite file, empty those of a server."""
    made = make_url(url)
    backend = made.get_backend_name()
    if backend == "sqlite":
        Path(made.database or "").write_bytes(_empty_file())
    elif backend == "mysql":
        with connect_mariadb(made) as connection:
            connection.query("SET lock_wait_timeout = 10")
            connection.query("TRUNCATE item")
    else:
        plain = made.set(drivername=backend).render_as_string(hide_password=False)
        outside.query(plain, EMPTY)


@cache
def _empty_file() -> bytes:
    """An SQLite file with the tables of the tests."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        create_tables(connection)
    driver: Any = engine.raw_connection()
    try:
        return bytes(driver.driver_connection.serialize())
    finally:
        driver.close()
        engine.dispose()


async def check_nothing_is_left(flavour: Flavour) -> None:
    """No connection checked out, none idle in transaction, no unit, no task."""
    check_idle(flavour.db)
    observer = Observer(flavour.url)
    # The server ends what an aborted connection had begun a moment later.
    await eventually(lambda: observer.in_transaction() == [])
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    ours = [t for t in tasks if "unitwork" in repr(t.get_coro())]
    assert not ours, f"tasks are left: {ours}"
