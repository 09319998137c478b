"""MariaDB loses what is committed elsewhere in the moment its connection ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.pool import NullPool

from support.databases import empty_tables
from support.flavours import Observer
from support.pages import statements
from unitwork._twophase.mariadb import MariaDB, Mark

NAME = "detached-1"
SERVER = "SELECT @@hostname, @@port, @@server_id"
OWNERS = """
SELECT trx_mysql_thread_id FROM information_schema.innodb_trx
WHERE trx_mysql_thread_id = {thread}
"""


@pytest.fixture
def engine(mariadb: str) -> Iterator[Engine]:
    url = make_url(mariadb).set(drivername="mysql+pymysql")
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def prepare(connection: Connection) -> Any:
    for sql in ("XA START {}", "INSERT INTO item (name) VALUES ('one')", "XA END {}"):
        connection.exec_driver_sql(sql.format(f"'{NAME}'"))
    connection.exec_driver_sql(f"XA PREPARE '{NAME}'")
    return connection.connection.driver_connection.thread_id()


def test_a_branch_is_ended_elsewhere_only_once_its_connection_has_left_it(
    mariadb: str, engine: Engine
) -> None:
    empty_tables(mariadb)
    dialect = MariaDB()
    with engine.connect() as first, engine.connect() as other:
        thread = prepare(first)
        mark = Mark(thread, tuple(other.exec_driver_sql(SERVER).one()))
        with statements(engine) as sent:
            while not dialect.is_detached(other, mark):
                pass

        assert other.exec_driver_sql(OWNERS.format(thread=thread)).all() == []
        assert sent[-1].startswith("DO SLEEP")
        dialect.end(other, NAME, commit=True)
        first.invalidate()
    assert Observer(mariadb).names() == ["one"]
