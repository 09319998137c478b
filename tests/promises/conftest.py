"""Fixtures of the promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI

from support.commit_server import Server
from support.crowds import Crowded
from support.databases import check_nothing_is_left
from support.flavours import Flavour
from support.pool import impatient
from support.proxy import Proxy
from unitwork import DBSessionMiddleware


@pytest.fixture
def done() -> list[str]:
    """What the code under test has noted."""
    return []


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=5)
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


@pytest.fixture
async def server(flavour: Flavour) -> AsyncIterator[Server]:
    async with Proxy(flavour.url) as proxy:
        yield Server(flavour, proxy)


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


@pytest.fixture
async def crowded(flavour: Flavour) -> AsyncIterator[Crowded]:
    async with Crowded(flavour) as crowded:
        yield crowded


@pytest.fixture
async def hasty(flavour: Flavour) -> AsyncIterator[Flavour]:
    async with impatient(flavour) as hasty:
        yield hasty
