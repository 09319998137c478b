"""Two databases, on one server or on two."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from support.databases import check_nothing_is_left, empty_tables
from support.flavours import MARIADB
from support.mortals import Mortal
from support.pairs import Pair, another_database, proxied
from support.pool import eventually
from support.twophase import end_what_is_left

PAIRS = [
    ("psycopg", "psycopg"),
    ("psycopg-async", "asyncpg"),
    ("asyncpg", "asyncpg"),
    ("psycopg", "pymysql"),
    ("asyncpg", "asyncmy"),
    ("pymysql", "psycopg-async"),
    ("pymysql", "asyncmy"),
    ("asyncmy", "asyncmy"),
]


@pytest.fixture(scope="session")
def second_postgresql(postgresql: str) -> Iterator[str]:
    with another_database(postgresql) as url:
        yield url


@pytest.fixture(scope="session")
def second_mariadb(mariadb: str) -> Iterator[str]:
    with another_database(mariadb) as url:
        yield url


@pytest.fixture(scope="session")
def mortal() -> Iterator[Mortal]:
    mortal = Mortal()
    yield mortal
    mortal.close()


@pytest.fixture(params=PAIRS, ids="+".join)
async def pair(
    request: pytest.FixtureRequest, mortal: Mortal, anyio_backend: str
) -> AsyncIterator[Pair]:
    one, other = request.param
    urls = []
    for name, second in ((one, ""), (other, "second_")):
        kind = "mariadb" if name in MARIADB else "postgresql"
        urls.append(request.getfixturevalue(f"{second}{kind}"))
    settings = getattr(request.function, "settings", None)
    async with (
        proxied(one, "first", urls[0], settings=settings) as first,
        proxied(other, "second", urls[1], settings=settings) as second_side,
    ):
        for side in (first, second_side):
            empty_tables(side.direct)
        pair = Pair(first, second_side)
        pair.mortal = mortal
        yield pair
        for side in pair.sides:
            await eventually(lambda side=side: not side.observer.in_transaction())
            await check_nothing_is_left(replace(side.flavour, url=side.direct))
        left = pair.prepared()
        end_what_is_left(pair)  # else it would be in the way of every test to come
        assert left == []
