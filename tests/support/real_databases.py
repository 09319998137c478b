"""Real databases of tests: one for each use, seen through the application's engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, make_url

from support.flavours import Flavour, connect_mariadb
from support.models import Item, create_tables
from unitwork._real_databases.real_databases import (
    LentDatabase,
    RealDatabases,
    redirected,
)
from unitwork._real_databases.schema import SchemaSource


@contextmanager
def real_databases(
    flavour: Flavour, schema: SchemaSource = (create_tables, "tables of the tests")
) -> Iterator[RealDatabases]:
    databases = RealDatabases(flavour.db, schema)
    try:
        yield databases
    finally:
        databases.close()


@contextmanager
def lent(databases: RealDatabases, *, keep: bool = False) -> Iterator[LentDatabase]:
    """Let the engine of *databases* connect to a new one, in the context of a block."""
    database = databases.take()
    try:
        with redirected(databases.engine, database.url):
            yield database
    finally:
        database.give_back(keep=keep)


def create_and_fill(connection: Connection) -> None:
    """Create the tables, with one item in them."""
    create_tables(connection)
    connection.execute(Item.__table__.insert().values(name="seed"))


def on_postgresql(statement: str) -> list[Any]:
    """Execute *statement* on the server, outside of any database of the tests."""
    server = os.environ["UNITWORK_TEST_POSTGRESQL"]
    with psycopg.connect(server, autocommit=True) as connection:
        cursor = connection.execute(statement)  # type: ignore[arg-type]  # ours
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


def databases_made(flavour: Flavour, prefix: str = "unitwork_test_") -> list[str]:
    """The names of the databases on the server of *flavour* that begin so."""
    if "mysql" not in flavour.url:
        return sorted(
            on_postgresql(
                "SELECT datname FROM pg_database WHERE datistemplate = false"
                f" AND starts_with(datname, '{prefix}')"
                " AND NOT starts_with(datname, 'unitwork_test_template')"
            )
        )
    with connect_mariadb(make_url(flavour.url)) as line, line.cursor() as cursor:
        cursor.execute("SHOW DATABASES")
        names = [row[0] for row in cursor.fetchall()]
    return sorted(name for name in names if name.startswith(prefix))
