"""Databases of several servers, started when the first test needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import create_engine, make_url

from galera import Galera
from mariadb_replication import MariadbReplication
from private import MissingError
from replication import Replication
from support.models import create_tables

REPLICAS = 2
EMPTY = """
    SET lock_timeout = '10s';
    DROP SCHEMA public CASCADE;
    CREATE SCHEMA public;
"""


@contextmanager
def _skipped_where_missing() -> Iterator[None]:
    """Skip the test where the servers are not installed; in CI, let it fail."""
    try:
        yield
    except MissingError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def replication_of_session() -> Iterator[Replication]:
    with ExitStack() as stack:
        with _skipped_where_missing():
            servers = stack.enter_context(Replication(REPLICAS))
        yield servers


@pytest.fixture
def replication(replication_of_session: Replication) -> Iterator[Replication]:
    """A PostgreSQL primary and two replicas, with the empty tables of the tests.

    A test may do to them what it likes: the next one finds them as they were at first.
    """
    servers = replication_of_session
    servers.primary.execute(EMPTY)
    url = make_url(servers.primary_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    create_tables(engine)
    engine.dispose()
    servers.wait_caught_up()
    yield servers
    servers.reset()


@pytest.fixture(scope="session")
def mariadb_replication_of_session() -> Iterator[MariadbReplication]:
    with ExitStack() as stack:
        with _skipped_where_missing():
            servers = stack.enter_context(MariadbReplication())
        yield servers


@pytest.fixture
def mariadb_replication(
    mariadb_replication_of_session: MariadbReplication,
) -> Iterator[MariadbReplication]:
    """A MariaDB primary and a replica, with the empty tables of the tests.

    A test may do to the replica what it likes: the next one finds it as it was first.
    """
    servers = mariadb_replication_of_session
    servers.primary.ask("CREATE OR REPLACE DATABASE test")
    url = make_url(servers.primary_url).set(drivername="mysql+pymysql")
    engine = create_engine(url)
    create_tables(engine)
    engine.dispose()
    servers.wait_caught_up()
    yield servers
    servers.reset()


@pytest.fixture(scope="session")
def galera_of_session() -> Iterator[Galera]:
    with ExitStack() as stack:
        with _skipped_where_missing():
            cluster = stack.enter_context(Galera())
        yield cluster


@pytest.fixture
def galera(galera_of_session: Galera) -> Iterator[Galera]:
    """Three nodes of MariaDB Galera, with the empty tables of the tests.

    A test may do to them what it likes: the next one finds them as they were at first.
    """
    cluster = galera_of_session
    cluster.nodes[0].ask("CREATE OR REPLACE DATABASE test")
    engine = create_engine(make_url(cluster.urls[0]).set(drivername="mysql+pymysql"))
    create_tables(engine)
    engine.dispose()
    yield cluster
    cluster.reset()
