"""A database with two streaming replicas, by each driver."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from servers.postgresql_replication import Replication
from support import outside
from support.databases import check_nothing_is_left
from support.flavours import POSTGRESQL, Flavour
from support.replicated import replicated_flavour


@pytest.fixture(params=POSTGRESQL)
async def replicated(
    request: pytest.FixtureRequest, replication: Replication, anyio_backend: str
) -> AsyncIterator[Flavour]:
    limits = {"pool_size": 5, "max_overflow": 0, "pool_timeout": 5}
    flavour = replicated_flavour(request.param, replication, **limits)
    yield flavour
    if replication.primary.is_running:
        await check_nothing_is_left(flavour)
    await flavour.dispose()
    outside.disconnect()
