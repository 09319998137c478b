"""Flavours x engines, and after each test: nothing checked out, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url

from support.flavours import (
    ASYNC,
    EVERY,
    FLAVOURS,
    MARIADB,
    POSTGRESQL,
    SERVERS,
    SYNC,
    Flavour,
    Observer,
    connect_mariadb,
    everywhere,
    kind_of,
    only,
)
from support.models import create_tables

__all__ = [
    "ASYNC",
    "EVERY",
    "MARIADB",
    "POSTGRESQL",
    "SERVERS",
    "SYNC",
    "everywhere",
    "only",
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a database of our own on the server that the launcher has started."""
    server = os.environ.get("UNITWORK_TEST_POSTGRESQL")
    if server is None:
        pytest.fail("no PostgreSQL: run `make test`, or set UNITWORK_TEST_POSTGRESQL")
    name = f"unitwork_test_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(server).set(database=name)
    engine = create_engine(url.set(drivername="postgresql+psycopg"))
    create_tables(engine)
    engine.dispose()
    yield url.render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """The same on MariaDB, which not every machine has."""
    server = os.environ.get("UNITWORK_TEST_MARIADB")
    if server is None:
        missing = "no MariaDB: apt install mariadb-server, and run `make test`"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    name = f"unitwork_test_{os.getpid()}"
    with connect_mariadb(make_url(server)) as connection:
        connection.query(f"CREATE DATABASE {name}")
    url = make_url(server).set(database=name)
    engine = create_engine(url.set(drivername="mysql+pymysql"))
    create_tables(engine)
    engine.dispose()
    yield url.render_as_string(hide_password=False)
    with connect_mariadb(make_url(server)) as connection:
        connection.query(f"DROP DATABASE {name}")


def url_of(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if "sqlite" in name:
        return f"{FLAVOURS[name]}:///{tmp_path}/test.db"
    fixture = "mariadb" if name in MARIADB else "postgresql"
    server = make_url(request.getfixturevalue(fixture))
    url = server.set(drivername=FLAVOURS[name])
    if name == "pymysql":  # to prepare for TLS takes it longer than most of the tests
        url = url.update_query_dict({"ssl_disabled": "true"})
    return url.render_as_string(hide_password=False)


@pytest.fixture(params=EVERY)
async def flavour(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Flavour]:
    """A fresh database for each driver; parametrize indirectly for fewer."""
    name: str = request.param
    url = url_of(name, request, tmp_path)
    db = kind_of(name)(url, pool_size=5, max_overflow=0, pool_timeout=5)
    flavour = Flavour(name, url, db)
    empty_tables(url)
    yield flavour
    await check_nothing_is_left(flavour)
    await flavour.dispose()


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


@pytest.fixture
def observer(flavour: Flavour) -> Observer:
    return Observer(flavour.url)


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


@pytest.fixture(autouse=True, scope="module")
def _old_objects_are_not_looked_at_each_time() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_garbage_with_connections() -> Iterator[None]:
    """What only the garbage collector gives back must fail its own test."""
    yield
    gc.collect()
