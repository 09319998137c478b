"""A cancelled first connect to a replica does not take it out of use."""

from __future__ import annotations

import pytest

from servers.postgresql_replication import Replication
from support.cancelling import cancelled_at, natively
from support.flavours import Flavour
from support.pool import check_pool_is_whole
from support.replicated import is_replica, replicated_flavour

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("driver", ["psycopg-async", "asyncpg"])
async def test_the_next_unit_reads_from_it(
    driver: str, replication: Replication
) -> None:
    found: list[Flavour] = []
    # A try at TLS that is cancelled makes asyncpg complain to the event loop.
    options = {"asyncpg": {"connect_args": {"ssl": False}}}.get(driver, {})

    async def connect() -> None:
        found.append(replicated_flavour(driver, replication, pool_size=1, **options))
        await found[-1].work(is_replica, read_only=True)

    for k in range(2, 20, 6):  # all of them would take long
        await cancelled_at(k, connect(), natively)
        assert await found[-1].work(is_replica, read_only=True)
        await check_pool_is_whole(found[-1])
        await found[-1].dispose()
