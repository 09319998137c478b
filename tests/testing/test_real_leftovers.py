"""What tests leave on a server: nothing, but templates and what is to be kept."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, make_url, text
from sqlalchemy.orm import Session

from support.flavours import SERVERS, Flavour, connect_mariadb, only
from support.models import add_item, create_tables, names
from support.pool import eventually
from support.real_databases import (
    databases_made,
    lent,
    on_postgresql,
    real_databases,
)
from unitwork import UsageError
from unitwork._real_databases.provisioning import new_key
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

TESTS = Path(__file__).parents[1]
SYNC_URL = {
    "postgresql+asyncpg": "postgresql+psycopg",
    "mysql+asyncmy": "mysql+pymysql",
}
ON_A_SERVER = only(*SERVERS)
ON_BOTH = only("asyncpg", "pymysql")


def crash(flavour: Flavour) -> str:
    """Kill a run of tests that has a database; return the name of that."""
    url = make_url(flavour.url)
    url = url.set(drivername=SYNC_URL.get(url.drivername, url.drivername))
    plain = url.render_as_string(hide_password=False)
    run = subprocess.run(
        [sys.executable, "-m", "support.crashing", plain],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.returncode < 0
    return run.stdout.strip()


def not_there_any_more(flavour: Flavour, name: str) -> bool:
    """Whether the next run removes it: once the server has seen the end of the last."""
    with real_databases(flavour) as databases, lent(databases):
        return databases_made(flavour, name) == []


@ON_A_SERVER
async def test_a_run_removes_what_it_has_made(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases) as made:
        key = str(made.url.database).rpartition("_")[0]
        assert databases_made(flavour, key)

    assert databases_made(flavour, key) == []


@ON_BOTH
async def test_the_next_run_removes_what_a_crash_has_left(flavour: Flavour) -> None:
    left = crash(flavour)
    assert databases_made(flavour, left) == [left]

    await eventually(lambda: not_there_any_more(flavour, left), seconds=30)


@ON_BOTH
async def test_what_a_parallel_run_uses_stays(flavour: Flavour) -> None:
    with (
        real_databases(flavour) as first,
        lent(first) as made,
        real_databases(flavour) as second,
        lent(second),
    ):
        assert databases_made(flavour, str(made.url.database))


@only("psycopg")
async def test_a_database_that_is_not_ours_stays(flavour: Flavour) -> None:
    name = f"unitwork_test_{new_key()}_0"
    on_postgresql(f"CREATE DATABASE {name}")
    on_postgresql(f"COMMENT ON DATABASE {name} IS 'of somebody else'")

    with real_databases(flavour) as databases, lent(databases):
        assert databases_made(flavour, name) == [name]

    on_postgresql(f"DROP DATABASE {name}")


@only("pymysql")
async def test_one_on_mariadb_stays_too(flavour: Flavour) -> None:
    name = f"unitwork_test_{new_key()}_0"
    with connect_mariadb(make_url(flavour.url)) as line:
        line.query(f"CREATE DATABASE {name} COMMENT 'of somebody else'")

        with real_databases(flavour) as databases, lent(databases):
            assert databases_made(flavour, name) == [name]

        line.query(f"DROP DATABASE {name}")


@ON_BOTH
async def test_one_that_is_kept_is_there_until_the_next_run(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases, keep=True) as made:
        await flavour.work(add_item)
    name = str(made.url.database)

    assert databases_made(flavour, name) == [name]
    await eventually(lambda: not_there_any_more(flavour, name), seconds=30)


@only("sqlite3")
async def test_a_file_is_kept(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases, keep=True) as made:
        await flavour.work(add_item)

    kept = Flavour("sqlite3", made.address, type(flavour.db)(made.address))
    assert await kept.work(names) == ["one"]
    await kept.dispose()
    shutil.rmtree(Path(str(made.url.database)).parent)


# Templates of PostgreSQL


@only("psycopg", "asyncpg")
async def test_a_template_is_made_once_for_all_runs(flavour: Flavour) -> None:
    calls: list[str] = []

    def create(connection: Connection) -> None:
        calls.append("create")
        create_tables(connection)

    schema = (create, new_key())
    with (
        real_databases(flavour, schema) as one,
        real_databases(flavour, schema) as two,
        lent(one),
        lent(two),
    ):
        assert calls == ["create"]

    with real_databases(flavour, schema) as three, lent(three):
        assert calls == ["create"]


@only("psycopg")
async def test_a_function_without_a_key_is_called_by_each_run(flavour: Flavour) -> None:
    calls: list[str] = []

    def create(connection: Connection) -> None:
        calls.append("create")
        create_tables(connection)

    for _ in range(2):
        with real_databases(flavour, create) as databases, lent(databases):
            await flavour.work(names)

    assert calls == ["create", "create"]


@only("psycopg")
async def test_a_template_that_is_half_made_is_made_anew(flavour: Flavour) -> None:
    def fail(connection: Connection) -> None:
        raise LookupError

    key = new_key()
    with (
        real_databases(flavour, (fail, key)) as databases,
        pytest.raises(LookupError),
    ):
        databases.take()

    with real_databases(flavour, (create_tables, key)) as databases, lent(databases):
        await flavour.work(add_item)


@only("psycopg", "asyncpg")
async def test_another_schema_has_another_template(flavour: Flavour) -> None:
    def columns(session: Session) -> list[str]:
        return list(session.execute(text("SELECT * FROM note")).keys())

    for length in (1, 2):
        found = [Column(name, Integer) for name in ("a", "b")[:length]]
        schema = MetaData()
        Table("note", schema, *found)
        with real_databases(flavour, schema) as databases, lent(databases):
            assert len(await flavour.work(columns)) == length


@only("psycopg", "asyncpg")
async def test_a_role_that_may_not_create_databases(flavour: Flavour) -> None:
    role = f"unitwork_{new_key()}"
    on_postgresql(f"CREATE ROLE {role} LOGIN")
    url = make_url(flavour.url).set(username=role)
    other = Flavour(flavour.name, str(url), type(flavour.db)(url))

    with (
        real_databases(other) as databases,
        pytest.raises(UsageError, match=f'ALTER ROLE "{role}" CREATEDB'),
    ):
        await asyncio.to_thread(databases.take)

    on_postgresql(f"DROP ROLE {role}")


@only("psycopg", "psycopg-async", "asyncpg")
async def test_a_commit_in_doubt_is_verified_there(flavour: Flavour) -> None:
    with real_databases(flavour) as databases, lent(databases):
        with commit_faults(flavour.db, CommitFault.COMMITTED):
            await flavour.work(add_item)
        assert await flavour.work(names) == ["one"]
