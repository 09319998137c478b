"""The test's own session: it is in no unit, and holds nothing while it is idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from support.flavours import Flavour, everywhere, only
from support.models import add_item
from support.sandboxes import count, entered, names
from unitwork import UsageError
from unitwork.testing import Sandbox, SandboxError

pytestmark = pytest.mark.anyio

Own = Callable[[Callable[[Any], Any]], Any]


@pytest.fixture
def own(flavour: Flavour, box: Sandbox) -> Own:
    """Runs a body with the test's own session."""

    async def run(body: Callable[[Any], Any]) -> Any:
        return await flavour.do(box.session_of(flavour.db), body)

    return run


@everywhere
async def test_what_it_commits_units_see(flavour: Flavour, own: Own) -> None:
    await own(add_item)
    await own(lambda session: session.commit())

    assert await flavour.work(names) == ["one"]


@everywhere
async def test_it_sees_what_units_commit(flavour: Flavour, own: Own) -> None:
    assert await own(count) == 0
    await flavour.work(add_item)

    assert await own(count) == 1


@everywhere
async def test_it_rolls_back_its_own_work_alone(flavour: Flavour, own: Own) -> None:
    await flavour.work(add_item)
    await own(lambda session: add_item(session, "two"))
    await own(lambda session: session.rollback())

    assert await own(names) == ["one"]


@everywhere
async def test_an_error_in_it_poisons_nothing(flavour: Flavour, own: Own) -> None:
    with pytest.raises(DBAPIError):
        await own(lambda session: session.execute(text("SELEKT")))
    await flavour.work(add_item)
    await own(lambda session: session.rollback())

    assert await own(names) == ["one"]


@everywhere
async def test_a_unit_is_refused_while_it_has_uncommitted_changes(
    flavour: Flavour, own: Own
) -> None:
    await own(add_item)
    with pytest.raises(SandboxError, match=r"`sandbox\.session`.*not committed"):
        await flavour.work(count)
    await own(lambda session: session.commit())

    assert await flavour.work(count) == 1


@everywhere
async def test_it_is_refused_inside_a_unit_of_the_test(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        with pytest.raises(SandboxError, match="inside"):
            await flavour.do(box.session, count)


@only("asyncpg", "psycopg-async", "aiosqlite", "asyncmy")
async def test_an_async_database_has_a_sync_session_for_plain_tests(
    flavour: Flavour,
) -> None:
    async with entered("with", flavour.db) as box:
        await flavour.work(add_item)

        assert await to_thread.run_sync(count, box.sync_session) == 1
        assert isinstance(box.session, AsyncSession)


@everywhere
async def test_it_ends_with_the_sandbox(flavour: Flavour) -> None:
    async with entered("async with", flavour.db) as box:
        assert box.session is box.session_of(flavour.db)
    with pytest.raises(SandboxError, match="closed"):
        _ = box.session


@everywhere
async def test_a_database_that_is_not_in_the_sandbox_has_none(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(UsageError, match="not in this sandbox"):
        box.session_of(flavour.another().db)
