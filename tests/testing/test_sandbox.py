"""A sandbox undoes what a test has committed, on every database and driver."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, everywhere
from support.models import Item, add_item
from support.sandboxes import WAYS, count, entered, names
from unitwork import UsageError, current_unit
from unitwork.testing import Sandbox, sandbox


def failing(session: Session) -> None:
    add_item(session, "two")
    raise LookupError


pytestmark = [everywhere, pytest.mark.anyio]


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_unit_commits_is_undone_at_the_end(
    flavour: Flavour, observer: Observer, way: str
) -> None:
    async with entered(way, flavour.db):
        await flavour.work(add_item)
        assert await flavour.work(count) == 1

    assert observer.names() == []
    assert await flavour.work(count) == 0


async def test_what_is_committed_is_seen_by_no_other_connection(
    flavour: Flavour, observer: Observer, box: Sandbox
) -> None:
    await flavour.work(add_item)

    assert observer.names() == []


async def test_a_unit_that_fails_leaves_the_work_of_others(
    flavour: Flavour, box: Sandbox
) -> None:
    await flavour.work(add_item)
    with pytest.raises(LookupError):
        await flavour.work(failing)

    assert await flavour.work(names) == ["one"]


async def test_a_statement_that_fails_poisons_its_own_unit_alone(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(DBAPIError):
        await flavour.work(lambda session: session.execute(text("SELEKT")))
    await flavour.work(add_item)

    assert await flavour.work(names) == ["one"]


async def test_a_savepoint_of_the_application_works(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(session: Session) -> None:
        add_item(session)
        with pytest.raises(LookupError), session.begin_nested():
            failing(session)
        with session.begin_nested():
            add_item(session, "three")

    await flavour.work(work)

    assert await flavour.work(names) == ["one", "three"]


async def test_a_commit_and_a_rollback_by_hand_work(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(session: Session) -> None:
        add_item(session)
        session.commit()
        add_item(session, "two")
        session.rollback()
        add_item(session, "three")

    await flavour.work(work)

    assert await flavour.work(names) == ["one", "three"]


async def test_hooks_run_at_the_commit_of_their_unit(
    flavour: Flavour, box: Sandbox
) -> None:
    called: list[str] = []
    async with flavour.block() as session:
        await flavour.do(session, add_item)
        current_unit().on_commit(called.append, "committed")
        assert called == []

    assert called == ["committed"]


async def test_the_engine_itself_is_in_the_sandbox(
    flavour: Flavour, observer: Observer, box: Sandbox
) -> None:
    await flavour.work(add_item)
    if flavour.is_async:
        async with flavour.db.engine.begin() as connection:
            await connection.execute(delete(Item))
    else:
        with flavour.db.engine.begin() as connection:
            connection.execute(delete(Item))

    assert await flavour.work(count) == 0


@pytest.mark.parametrize("way", WAYS)
async def test_sandboxes_follow_each_other(
    flavour: Flavour, observer: Observer, way: str
) -> None:
    for _ in range(3):
        async with entered(way, flavour.db):
            await flavour.work(add_item)

    await flavour.work(add_item)
    assert observer.names() == ["one"]


async def test_a_sandbox_is_of_databases(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="give a Database or AsyncDatabase"):
        sandbox(flavour.db.engine)
    with pytest.raises(UsageError, match="at least one"):
        sandbox()
