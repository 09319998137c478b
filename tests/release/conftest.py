"""Fixtures of the tests of released connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.databases import check_nothing_is_left
from support.flavours import Flavour
from support.releasing import releasing
from support.several import Two, second_database


@pytest.fixture
def done() -> list[str]:
    """What the code under test has noted."""
    return []


@pytest.fixture(params=["aiosqlite"])
async def second(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Flavour]:
    async with second_database(request.param, tmp_path) as second:
        yield second


@pytest.fixture
def two(flavour: Flavour, second: Flavour) -> Two:
    return Two(flavour, second)


@pytest.fixture
async def released(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database, with the release mode "statement"."""
    released = releasing(flavour)
    yield released
    await check_nothing_is_left(released)
    await released.dispose()
