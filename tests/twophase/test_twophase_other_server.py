"""MariaDB is another server when the unit verifies its COMMIT.

It stands for a failover to a replica that has received nothing of the transaction.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url

from servers.mariadb import mariadb as another_mariadb
from support.models import create_tables
from support.pairs import COMMIT, Pair
from support.proxy import Line
from support.twophase import add, end_what_is_left, only_pairs
from unitwork import CommitUnknownError, DatabaseSettings, Outcome

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def empty(mariadb: str) -> Iterator[str]:
    """Another server, with a database of the same name."""
    with another_mariadb([]) as variables:
        server = make_url(variables["UNITWORK_TEST_MARIADB"])
        server = server.set(drivername="mysql+pymysql", database=None)
        name = make_url(mariadb).database
        engine = create_engine(server)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        engine = create_engine(server.set(database=name))
        create_tables(engine)
        engine.dispose()
        yield server.set(database=name).render_as_string(hide_password=False)


def mark(test: object) -> object:
    test.settings = DatabaseSettings(verify_timeout=0.5)
    return test


@mark
@only_pairs(("pymysql", "psycopg-async"), ("asyncmy", "asyncpg"))
async def test_another_server_does_not_know_whether_it_was_committed(
    pair: Pair, empty: str
) -> None:
    def fail_over(line: Line) -> None:
        pair.first.proxy.lead_to(empty)
        line.cut()

    pair.first.trap(COMMIT, fail_over)

    reply = await pair.post(add, add)

    end_what_is_left(pair)
    assert (reply.status, type(reply.error)) == (500, CommitUnknownError)
    assert pair.units[0].outcome is Outcome.UNKNOWN
