"""In a sandbox all units use the one connection, and reads see what it has written."""

from __future__ import annotations

import pytest

from support.flavours import Flavour
from support.models import add_item, names
from support.replicated import is_replica
from unitwork import ReadOnlyError, current_unit
from unitwork.testing import sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("replicated", ["psycopg", "asyncpg"], indirect=True),
]


async def test_a_read_sees_what_the_test_has_written(replicated: Flavour) -> None:
    async with sandbox(replicated.db):
        await replicated.work(add_item)
        assert await replicated.work(names, read_only=True) == ["one"]
        assert not await replicated.work(is_replica, read_only=True)

    assert await replicated.work(names, replica=False, read_only=True) == []


async def test_a_write_is_refused_as_on_a_replica(replicated: Flavour) -> None:
    async with sandbox(replicated.db):
        with pytest.raises(ReadOnlyError):
            await replicated.work(add_item, read_only=True)


async def test_there_is_no_token(replicated: Flavour) -> None:
    async with sandbox(replicated.db), replicated.block() as session:
        await replicated.do(session, add_item)
        unit = current_unit()

    assert unit.token is None
