"""The databases of tests have no replicas: they would show the application's own."""

from __future__ import annotations

import pytest

from support.flavours import Flavour
from support.models import add_item, create_tables, names
from support.replicated import is_replica
from unitwork._real_databases.pools import close_pools
from unitwork._real_databases.worker import WorkerDatabases
from unitwork.testing import sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("replicated", ["psycopg", "asyncpg"], indirect=True),
]
SCHEMA = (create_tables, "tables of the tests")


async def test_a_unit_in_a_sandbox_reads_what_the_test_has_stored(
    replicated: Flavour,
) -> None:
    with sandbox(replicated.db):
        await replicated.work(add_item)

        assert await replicated.work(names, read_only=True) == ["one"]
        assert not await replicated.work(is_replica, read_only=True)


async def test_a_unit_in_a_real_database_reads_what_the_test_has_stored(
    replicated: Flavour,
) -> None:
    await replicated.work(is_replica, read_only=True)  # replicas are known by now
    with sandbox(replicated.db, real=True, schema=SCHEMA):
        await replicated.work(add_item)

        assert await replicated.work(names, read_only=True) == ["one"]
    close_pools()


async def test_a_process_of_tests_reads_from_its_own_database(
    replicated: Flavour,
) -> None:
    with WorkerDatabases([replicated.db], SCHEMA):
        await replicated.work(add_item)

        assert await replicated.work(names, read_only=True) == ["one"]
