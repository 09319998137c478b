"""Fixtures of the tests of units."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.flavours import Flavour
from support.several import Two, second_database
from unitwork import AsyncDatabase


@pytest.fixture(params=["sqlite3", "aiosqlite"])
async def second(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Flavour]:
    async with second_database(request.param, tmp_path) as second:
        yield second


@pytest.fixture
def two(flavour: Flavour, second: Flavour) -> Two:
    return Two(flavour, second)


@pytest.fixture
async def db() -> AsyncIterator[AsyncDatabase]:
    db = AsyncDatabase("sqlite+aiosqlite://")
    yield db
    await db.dispose()
