"""Units take turns in a sandbox; one inside another nests, as far as savepoints can."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import Any

import pytest
from anyio import to_thread
from sqlalchemy.orm import Session

from support.flavours import Flavour, only
from support.models import add_item
from support.sandboxes import WAYS, count, entered, names
from unitwork._unit.context import current
from unitwork.testing import Sandbox, SandboxError

FEW = only("sqlite3", "psycopg", "asyncpg", "aiosqlite", "pymysql")
ASYNC = only("asyncpg", "psycopg-async", "aiosqlite", "asyncmy")
SYNC = only("sqlite3", "psycopg", "pymysql")
pytestmark = pytest.mark.anyio


@FEW
async def test_units_side_by_side_wait_for_each_other(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(session: Session) -> int:
        before = count(session)
        add_item(session, str(before))
        return before

    found = await asyncio.gather(*(flavour.work(work) for _ in range(10)))

    assert sorted(found) == list(range(10))


@ASYNC
async def test_a_unit_waits_from_its_first_statement(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block(), flavour.block():  # neither has connected
        await flavour.work(add_item)

    assert await flavour.work(count) == 1


@ASYNC
async def test_a_wait_that_is_too_long_names_both(flavour: Flavour) -> None:
    async def other() -> None:
        with pytest.raises(
            SandboxError, match=r"transaction\(\) block has waited.*has"
        ):
            await flavour.work(count)

    async with entered("async with", flavour.db, timeout=0.05), flavour.block() as one:
        await flavour.do(one, add_item)
        await asyncio.create_task(other(), context=empty_of_units())


def empty_of_units() -> Any:
    """The caller's context, as it is outside of all units."""
    context = copy_context()
    context.run(current.set, None)
    return context


@FEW
async def test_an_inner_unit_that_is_committed_with_the_outer_one_is_kept(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        await flavour.work(lambda inner: add_item(inner, "two"))

    assert await flavour.work(names) == ["one", "two"]


@FEW
async def test_an_inner_unit_that_is_rolled_back_leaves_the_outer_one(
    flavour: Flavour, box: Sandbox
) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        with pytest.raises(LookupError):
            await flavour.work(failing)

    assert await flavour.work(names) == ["one"]


def failing(session: Session) -> None:
    add_item(session, "two")
    raise LookupError


@FEW
async def test_an_inner_unit_that_only_reads_may_be_in_an_outer_one_that_fails(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(LookupError):
        await outer_that_fails(flavour, count)
    assert await flavour.work(count) == 0


@FEW
@pytest.mark.parametrize("way", WAYS)
async def test_an_inner_commit_in_an_outer_rollback_is_refused(
    flavour: Flavour, way: str
) -> None:
    with pytest.raises(SandboxError, match="real mode"):
        await swallowing(flavour, way)


async def swallowing(flavour: Flavour, way: str) -> None:
    async with entered(way, flavour.db):
        with pytest.raises((LookupError, SandboxError)):
            await outer_that_fails(flavour, lambda inner: add_item(inner, "two"))


async def outer_that_fails(flavour: Flavour, inside: Any) -> None:
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        await flavour.work(inside)
        raise LookupError


@SYNC
async def test_an_inner_commit_in_a_savepoint_that_is_rolled_back_is_refused(
    flavour: Flavour,
) -> None:
    def inside(session: Session) -> None:
        with pytest.raises(LookupError), session.begin_nested():
            commit_beside(flavour.db, add_item(session))

    with pytest.raises(SandboxError, match="real mode"):
        async with entered("with", flavour.db):
            await flavour.work(inside)


def commit_beside(db: Any, written_before: object) -> None:
    with db.transaction() as session:
        add_item(session, "three")
    raise LookupError


@ASYNC
async def test_inner_units_of_one_unit_take_turns(
    flavour: Flavour, box: Sandbox
) -> None:
    async def inner(name: str) -> None:
        await flavour.work(lambda session: add_item(session, name))

    async with flavour.block() as session:
        await flavour.do(session, add_item)
        await asyncio.gather(inner("two"), inner("three"), inner("four"))

    assert await flavour.work(count) == 4


@SYNC
async def test_threads_of_one_sandbox_take_turns(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(number: int) -> None:
        with flavour.db.transaction() as session:
            add_item(session, str(number))

    await asyncio.gather(*(to_thread.run_sync(work, n) for n in range(8)))

    assert await flavour.work(count) == 8
