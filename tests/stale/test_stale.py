"""A short form of the long proof: see `__main__.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from servers.postgresql_replication import Replication
from stale.__main__ import measure, parsed

pytestmark = pytest.mark.anyio


def arguments(*given: str) -> argparse.Namespace:
    return parsed("--processes", "2", "--clients", "6", *given)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_no_read_is_stale_while_replicas_fail(
    replication: Replication, tmp_path: Path, driver: str
) -> None:
    given = arguments("--driver", driver, "--pairs", "150", "--every", "1.5")
    counts = await measure(replication, given, tmp_path)

    assert (counts.stale, counts.failed, counts.errors) == (0, 0, [])
    assert counts.pairs >= 150


async def test_most_reads_leave_the_primary_though_replicas_are_behind(
    replication: Replication, tmp_path: Path
) -> None:
    given = arguments("--pairs", "100", "--delay", "50", "--faults", "")
    counts = await measure(replication, given, tmp_path)

    assert (counts.stale, counts.failed) == (0, 0)
    assert counts.from_replicas >= 0.9 * counts.pairs
