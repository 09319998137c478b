"""Databases of several servers, started when the first test needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TypeVar

import pytest
from sqlalchemy import create_engine, make_url

from servers.galera import Galera
from servers.host import MissingError
from servers.mariadb_replication import MariadbReplication
from servers.postgresql_replication import Replication
from servers.server_group import ServerGroup
from support.models import create_tables

REPLICAS = 2
EMPTY = """
    SET lock_timeout = '10s';
    DROP SCHEMA public CASCADE;
    CREATE SCHEMA public;
"""


Group = TypeVar("Group", bound=ServerGroup)


def _run(servers: Group) -> Iterator[Group]:
    """Run *servers*; skip where they are not installed, but fail in CI."""
    with ExitStack() as stack:
        try:
            stack.enter_context(servers)
        except MissingError as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        yield servers


def _fill(url: str, driver: str) -> None:
    """Create the empty tables of the tests in the database at *url*."""
    engine = create_engine(make_url(url).set(drivername=driver))
    create_tables(engine)
    engine.dispose()


@pytest.fixture(scope="session")
def replication_of_session() -> Iterator[Replication]:
    yield from _run(Replication(REPLICAS))


@pytest.fixture
def replication(replication_of_session: Replication) -> Iterator[Replication]:
    """A PostgreSQL primary and two replicas, with the empty tables of the tests.

    A test may do to them what it likes: the next one finds them as they were at first.
    """
    servers = replication_of_session
    servers.primary.execute(EMPTY)
    _fill(servers.primary_url, "postgresql+psycopg")
    servers.wait_caught_up()
    yield servers
    servers.reset()


@pytest.fixture(scope="session")
def mariadb_replication_of_session() -> Iterator[MariadbReplication]:
    yield from _run(MariadbReplication())


@pytest.fixture
def mariadb_replication(
    mariadb_replication_of_session: MariadbReplication,
) -> Iterator[MariadbReplication]:
    """A MariaDB primary and a replica, with the empty tables of the tests.

    A test may do to the replica what it likes: the next one finds it as it was first.
    """
    servers = mariadb_replication_of_session
    servers.primary.ask("CREATE OR REPLACE DATABASE test")
    _fill(servers.primary_url, "mysql+pymysql")
    servers.wait_caught_up()
    yield servers
    servers.reset()


@pytest.fixture(scope="session")
def galera_of_session() -> Iterator[Galera]:
    yield from _run(Galera())


@pytest.fixture
def galera(galera_of_session: Galera) -> Iterator[Galera]:
    """Three nodes of MariaDB Galera, with the empty tables of the tests.

    A test may do to them what it likes: the next one finds them as they were at first.
    """
    cluster = galera_of_session
    cluster.nodes[0].ask("CREATE OR REPLACE DATABASE test")
    _fill(cluster.urls[0], "mysql+pymysql")
    yield cluster
    cluster.reset()
