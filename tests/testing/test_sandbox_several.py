"""One sandbox of several databases, sync and async, of one application."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from anyio import to_thread
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from support.sandboxes import WAYS, entered
from unitwork import Database
from unitwork.testing import Sandbox, assert_committed, assert_rolled_back

pytestmark = [pytest.mark.anyio, only("asyncpg", "psycopg-async")]


@pytest.fixture
async def sync_db(flavour: Flavour) -> AsyncIterator[Database[Session]]:
    url = flavour.db.engine.url.set(drivername="postgresql+psycopg")
    db = Database(url, name="sync")
    yield db
    db.dispose()


@pytest.fixture(params=WAYS)
async def both(
    request: pytest.FixtureRequest, flavour: Flavour, sync_db: Database[Session]
) -> AsyncIterator[Sandbox[AsyncSession]]:
    async with entered(request.param, flavour.db, sync_db) as box:
        yield box


async def test_each_has_its_own_connection_and_session(
    flavour: Flavour, sync_db: Database[Session], both: Sandbox[AsyncSession]
) -> None:
    def add_two() -> None:
        with sync_db.transaction() as session:
            add_item(session, "two")

    await flavour.work(add_item)
    await to_thread.run_sync(add_two)

    own = both.session_of(sync_db)
    assert await both.session.run_sync(names) == ["one"]
    assert await to_thread.run_sync(names, own) == ["two"]


async def test_a_unit_of_one_may_be_inside_a_unit_of_the_other(
    flavour: Flavour, sync_db: Database[Session], both: Sandbox[AsyncSession]
) -> None:
    def add_two() -> None:
        with sync_db.transaction() as session:
            add_item(session, "two")

    async def fail_around_it() -> None:
        async with flavour.block() as session:
            await flavour.do(session, add_item)
            await to_thread.run_sync(add_two)
            raise LookupError

    with (
        assert_committed(sync_db),
        pytest.raises(LookupError),
        assert_rolled_back("LookupError", flavour.db),
    ):
        await fail_around_it()

    assert await flavour.work(names) == []
    assert await to_thread.run_sync(names, both.session_of(sync_db)) == ["two"]


async def test_both_are_undone_at_the_end(
    flavour: Flavour, sync_db: Database[Session], observer: Observer
) -> None:
    async with entered("with", flavour.db, sync_db):
        await flavour.work(add_item)
        with sync_db.transaction() as session:
            add_item(session, "two")

    assert observer.names() == []
