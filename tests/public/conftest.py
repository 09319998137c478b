"""Fixtures of the tests of databases and of retries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.engines import open_engine, over
from support.flavours import Flavour
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
