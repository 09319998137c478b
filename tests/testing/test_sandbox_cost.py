"""What a sandbox costs a test: round trips."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.flavours import Flavour, only
from support.models import add_item
from support.proxy import Proxy, RoundTrips
from support.sandboxes import count
from unitwork.testing import sandbox

pytestmark = pytest.mark.anyio

READY = 6
"""Tests until the drivers have prepared the statements."""


@only("asyncpg", "psycopg-async")  # the proxy is in this event loop
async def test_a_sandbox_takes_a_round_trip_at_its_end_and_no_other(
    flavour: Flavour,
) -> None:
    async with Proxy(flavour.url) as proxy:
        there = replace(flavour, url=proxy.url).another()
        trips, made = RoundTrips(), 0
        proxy.for_newcomers.append(trips)
        for _ in range(READY):
            before = trips.count
            async with sandbox(there.db):
                await there.work(add_item)
                await there.work(count)
            made = trips.count - before
        await there.dispose()

    # BEGIN, INSERT, COMMIT; SELECT, COMMIT; ROLLBACK
    assert made == 6
