"""Blocks in units send what the page says, and store it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from support.manual import Page
from support.pages import postgresql, statements
from unitwork import (
    AsyncDatabase,
    PoolTimeoutError,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)


@pytest.fixture
def main(page: Page, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page, in a database of its own."""
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        main = page.run()
        asyncio.run(main.db.dispose())
        yield main


def run(main: Any, work: Callable[[], Awaitable[None]]) -> None:
    """Run *work* in an event loop of its own."""

    async def run_and_dispose() -> None:
        try:
            await work()
        finally:
            await main.db.dispose()

    asyncio.run(run_and_dispose())


def sent_by(main: Any, work: Callable[[], Awaitable[None]]) -> list[str]:
    """The statements of *work*, each without its names."""
    with statements(main.db.engine) as sent:
        run(main, work)
    ours = [sql for sql in sent if "pg_" not in sql]
    return [sql.split(" sa_")[0].split(" INTO ")[0] for sql in ours]


def stored(main: Any) -> list[str]:
    names: list[str] = []

    async def read() -> None:
        async with main.db.transaction() as session:
            found = await session.scalars(select(main.Item.name).order_by(main.Item.id))
            names.extend(found)

    run(main, read)
    return names


def test_commits_a_unit_of_its_own(main: Any) -> None:
    async def own() -> None:
        with pytest.raises(LookupError):
            await main.own()

    begun, inner = ["BEGIN", "INSERT"], ["BEGIN", "INSERT", "COMMIT"]
    assert sent_by(main, own) == [*begun, *inner, "ROLLBACK"]
    assert stored(main) == ["audit record"]


def test_rolls_a_savepoint_back(main: Any) -> None:
    first = ["BEGIN", "SAVEPOINT", "INSERT", "RELEASE SAVEPOINT"]
    second = ["SAVEPOINT", "INSERT", "ROLLBACK TO SAVEPOINT"]

    assert sent_by(main, main.savepoints) == [*first, *second, "COMMIT"]
    assert stored(main) == ["first"]


def test_rolls_all_of_a_joined_block_back(main: Any) -> None:
    async def joined() -> None:
        with pytest.raises(UnexpectedRollbackError):
            await main.all_or_nothing()

    assert sent_by(main, joined) == ["BEGIN", "INSERT", "ROLLBACK"]
    assert stored(main) == []


def test_refuses_options_that_come_too_late(main: Any) -> None:
    async def too_late() -> None:
        async with main.db.transaction() as session:
            await session.execute(select(1))
            async with main.db.transaction(nested="join", read_only=True):
                pass

    with pytest.raises(UsageError, match="too late"):
        run(main, too_late)


def test_ends_the_wait_for_a_row_of_the_enclosing_unit(main: Any) -> None:
    async def wait_for_itself() -> None:
        async with main.db.transaction() as session:
            session.add(main.Item(id=1, name="lamp"))
            await session.flush()
            async with main.db.transaction(lock_timeout=0.1) as another:
                another.add(main.Item(id=1, name="another lamp"))

    with pytest.raises(DBAPIError, match="lock timeout"):
        run(main, wait_for_itself)


def test_keeps_each_hook_with_its_transaction(main: Any) -> None:
    called: list[str] = []

    async def register(nested: Any) -> None:
        async with main.db.transaction(nested=nested):
            current_unit().on_commit(called.append, nested)

    async def fail() -> None:
        async with main.db.transaction(nested="savepoint"):
            current_unit().on_commit(called.append, "dropped")
            raise LookupError

    async def hooks() -> None:
        async with main.db.transaction():
            await register("savepoint")
            await register("join")
            await register("own")
            with pytest.raises(LookupError):
                await fail()
            assert called == ["own"]

    run(main, hooks)
    assert called == ["own", "savepoint", "join"]


def test_shows_the_error_without_a_second_connection(page: Page, main: Any) -> None:
    url = main.os.environ["DATABASE_URL"]
    small = AsyncDatabase(url, pool_size=2, max_overflow=0, pool_timeout=0.1)

    async def audited(step: asyncio.Barrier) -> None:
        async with small.transaction() as session:
            await session.execute(select(1))
            await step.wait()  # now each unit holds one of the two connections
            try:
                async with small.transaction() as audit:
                    await audit.execute(select(1))
            finally:
                await step.wait()

    async def two_at_once() -> None:
        step = asyncio.Barrier(2)
        try:
            await asyncio.gather(audited(step), audited(step))
        finally:
            await small.dispose()

    with pytest.raises(PoolTimeoutError) as caught:
        run(main, two_at_once)
    assert str(caught.value) in " ".join(page.text.split())
