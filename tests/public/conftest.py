"""Fixtures of the tests of databases, of retries and of mistakes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import open_engine, over
from support.flavours import Flavour
from support.mistakes import Base, Item, Owner, World
from support.tried import Tried


@pytest.fixture
async def engine(flavour: Flavour) -> AsyncIterator[Any]:
    """An engine of the test's own, on the database of *flavour*."""
    engine = open_engine(flavour)
    yield engine
    await over(flavour, engine).dispose()


@pytest.fixture
def tried(flavour: Flavour) -> Tried:
    return Tried(flavour)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with world.db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with world.db.transaction() as session:
        session.add(Owner(items=[Item()]))
    yield world
    await world.db.dispose()
    world.sync_db.dispose()
