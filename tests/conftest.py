"""Flavours x engines, and after each test: nothing checked out, nothing left behind."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from support import outside
from support.clocks import CLOCK, Clock
from support.clusters import (  # noqa: F401
    galera,
    galera_of_session,
    mariadb_replication,
    mariadb_replication_of_session,
    replication,
    replication_of_session,
)
from support.commit_server import WAIT_FOR_LOCK
from support.databases import check_nothing_is_left, empty_tables, url_of
from support.flavours import EVERY, Flavour, Observer, connect_mariadb, kind_of
from support.models import create_tables
from support.through import behind, leave_out, through
from unitwork import DatabaseSettings

LONGEST_FIRST = [
    "test_benchmarks.py",
    "test_items_demo.py",
    "test_any_order.py",
    "test_tutorial.py",
    "test_servers.py",
    "test_server_faults.py",
    "test_readme.py",
    "test_soak.py",
    "test_gunicorn.py",
    "test_testing.py",
    "test_own_errors.py",
    "test_howto_processes.py",
    "test_websocket.py",
    "test_migration.py",
    "test_hooks_hanging.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, or one process would end with it while others idle.

    `--no-loadscope-reorder` keeps that order; else the files with few tests come last.
    """
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    leave_out(items)
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


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
    with engine.begin() as schema:
        schema.execute(text(WAIT_FOR_LOCK))
    engine.dispose()
    yield url.render_as_string(hide_password=False)
    outside.disconnect()
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


@pytest.fixture(params=EVERY)
async def flavour(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Flavour]:
    """A fresh database for each driver; parametrize indirectly for fewer."""
    name: str = request.param
    url = url_of(name, request, tmp_path)
    options = behind(url, {"pool_size": 5, "max_overflow": 0, "pool_timeout": 5})
    db = kind_of(name)(through(url), **options)
    flavour = Flavour(name, url, db)
    empty_tables(url)
    yield flavour
    await check_nothing_is_left(flavour)
    await flavour.dispose()


@pytest.fixture
def observer(flavour: Flavour) -> Observer:
    return Observer(flavour.url)


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    """Celery and Litestar set its level and handlers, for all tests that follow."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture(autouse=True)
def _no_garbage_with_connections() -> Iterator[None]:
    """What only the garbage collector gives back must fail its own test."""
    yield
    gc.collect()
    gc.freeze()  # what is still in use is not looked at after each of the later tests


@pytest.fixture
def clock() -> Clock:
    """The clock of this process, which a test may put forward."""
    CLOCK.install()
    return CLOCK


@pytest.fixture
async def unsure(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, which is not asked for the outcome of a COMMIT in doubt."""
    settings = DatabaseSettings(verify_commit=False)
    unsure = flavour.another(settings=settings)
    yield unsure
    await unsure.dispose()
