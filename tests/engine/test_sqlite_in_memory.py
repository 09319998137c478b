"""SQLite: databases in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from support.asgi import call
from support.flavours import Flavour, only
from support.models import Child, add_item, names
from support.sqlite import add_quietly, serve, serve_inside
from unitwork import AsyncDatabase, Database, UnexpectedRollbackError, UsageError

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

ANY_THREAD = {"check_same_thread": False}
MEMORY = {"sqlite3": "sqlite://", "aiosqlite": "sqlite+aiosqlite://"}


@pytest.fixture
async def memory(flavour: Flavour) -> AsyncIterator[Flavour]:
    db = type(flavour.db)(MEMORY[flavour.name])
    memory = Flavour(flavour.name, MEMORY[flavour.name], db)
    await memory.create_tables()
    yield memory
    assert db.pool_status().checked_out == 0
    await memory.dispose()


async def test_a_database_in_memory_is_shared_by_all_units(memory: Flavour) -> None:
    app = serve(memory, names)

    await memory.work(add_item)
    await call(serve(memory, lambda s: add_item(s, "two").id), "POST", "/")

    assert await memory.work(names) == ["one", "two"]
    assert (await call(app, "GET", "/")).json == ["one", "two"]


async def test_a_database_in_memory_is_no_file(
    flavour: Flavour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    memory = Flavour(flavour.name, "", type(flavour.db)(MEMORY[flavour.name]))
    await memory.create_tables()
    await memory.work(add_item)
    await memory.dispose()

    assert list((tmp_path / "here").iterdir()) == []


async def test_databases_in_memory_are_not_shared_with_others(memory: Flavour) -> None:
    other = type(memory.db)(memory.url)

    with pytest.raises(OperationalError, match="no such table"):
        await Flavour(memory.name, memory.url, other).work(names)

    await Flavour(memory.name, memory.url, other).dispose()


@pytest.mark.parametrize("name", ["sqlite:///:memory:", "sqlite://"])
async def test_both_names_of_a_database_in_memory_will_do(
    flavour: Flavour, name: str
) -> None:
    scheme = MEMORY[flavour.name].partition(":")[0]
    url = name.replace("sqlite", scheme)
    memory = Flavour(flavour.name, url, type(flavour.db)(url))
    await memory.create_tables()

    await memory.work(add_item)

    assert await memory.work(names) == ["one"]
    await memory.dispose()


async def test_a_database_in_memory_survives_its_connection(memory: Flavour) -> None:
    await memory.work(add_item)

    await memory.work(Session.invalidate)
    with pytest.raises(UnexpectedRollbackError, match="was called"):
        await memory.work(use_and_invalidate)
    await memory.dispose()

    assert await memory.work(names) == ["one"]


def use_and_invalidate(session: Session) -> None:
    names(session)
    session.invalidate()


async def test_a_database_in_memory_rolls_back(memory: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        raise LookupError

    with pytest.raises(LookupError):
        await memory.work(body)

    assert await memory.work(names) == []


async def test_a_database_in_memory_enforces_foreign_keys(memory: Flavour) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await memory.work(lambda session: session.add(Child(parent_id=1)))


async def test_units_of_a_database_in_memory_take_turns(memory: Flavour) -> None:
    def count(session: Session) -> None:
        add_item(session, f"item {len(names(session))}")

    app = serve(memory, count)
    requests = [call(app, "POST", "/") for _ in range(6)]
    blocks = [memory.work(count) for _ in range(6)]
    await asyncio.gather(*requests, *blocks)

    assert memory.db.pool_status().size == 1
    assert await memory.work(names) == [f"item {n}" for n in range(12)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_block_inside_a_unit_that_has_the_one_connection_is_refused_at_once(
    memory: Flavour, method: str
) -> None:
    reply = await serve_inside(memory, method, names)

    assert isinstance(reply.error, UsageError)
    assert 'nested="join"' in str(reply.error)


async def test_a_block_may_join_in_memory(memory: Flavour) -> None:
    reply = await serve_inside(memory, "POST", add_quietly, nested="join")

    assert (reply.status, reply.error) == (200, None)
    assert await memory.work(names) == ["outer", "inner"]


async def test_a_database_in_memory_is_gone_with_its_owner(flavour: Flavour) -> None:
    kinds = {"sqlite3": Database, "aiosqlite": AsyncDatabase}
    kind: Any = kinds[flavour.name]
    for _ in range(2):
        memory = Flavour(flavour.name, "", kind(MEMORY[flavour.name]))
        await memory.create_tables()
        assert await memory.work(names) == []
        await memory.work(add_item)
        await memory.dispose()


async def test_the_one_connection_of_an_engine_that_is_given_is_used_again(
    flavour: Flavour,
) -> None:
    engine = (create_async_engine if flavour.is_async else create_engine)(
        MEMORY[flavour.name], poolclass=StaticPool, connect_args=ANY_THREAD
    )
    memory = Flavour(flavour.name, "", type(flavour.db)(engine))
    await memory.create_tables()

    def invalidate(session: Session) -> None:
        session.connection().invalidate()

    with pytest.raises(UnexpectedRollbackError):
        await memory.work(invalidate)
    await memory.work(add_item)  # it is not read-only, nor another one

    assert await memory.work(names) == ["one"]
    await memory.dispose()
