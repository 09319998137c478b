"""Retries: never once a block, another database or an inner middleware committed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from support.asgi import Message, call
from support.conflicts import Conflict
from support.databases import check_nothing_is_left, empty_tables
from support.flavours import FEW, POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item, names
from support.tried import THREE, Tried, check_once
from unitwork import (
    Database,
    DBSessionMiddleware,
    UnitOfWork,
    current_unit,
    transactional,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

BOTH_WAYS = pytest.mark.parametrize("fault", list(CommitFault))


# A block inside has committed


@FEW
async def test_after_a_block_of_its_own_has_committed_a_write(
    tried: Tried, observer: Observer
) -> None:
    check_once(tried, await tried.request(tried.block))
    assert observer.names() == ["attempt 1"]


@FEW
async def test_but_it_is_after_a_block_that_has_only_read(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def read() -> None:
        await flavour.work(names)

    assert (await tried.request(read, tried.write)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


@FEW
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_but_it_is_after_a_block_that_has_joined(
    flavour: Flavour, tried: Tried, observer: Observer, nested: str
) -> None:
    async def join() -> None:
        await flavour.work(tried.add, nested=nested)

    assert (await tried.request(join)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


@FEW
async def test_after_a_block_that_has_committed_by_hand_and_failed_then(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    def body(session: Session) -> None:
        tried.add(session)
        session.commit()
        names(session)
        raise Conflict

    async def block() -> None:
        await flavour.work(body)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["attempt 1"]


@FEW
@BOTH_WAYS
async def test_after_a_block_whose_commit_by_hand_is_in_doubt(
    unsure: Flavour, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        tried.add(session)
        session.commit()

    async def block() -> None:
        await unsure.work(body)

    tried = Tried(unsure, [0])
    with commit_faults(unsure.db, fault):
        reply = await tried.request(block)

    assert (reply.status, tried.attempts) == (500, [0, 1])


@FEW
async def test_after_a_block_of_which_only_a_hook_has_written(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    async def block() -> None:
        async with flavour.block() as session:
            await flavour.do(session, names)
            if flavour.is_async:
                current_unit().before_commit(session.run_sync, tried.add)
            else:
                current_unit().before_commit(tried.add, session)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["attempt 1"]


@only(*POSTGRESQL)
@pytest.mark.parametrize(
    "statement",
    [
        select(insert(Item).values(name="one").returning(Item.id).cte()),
        text(
            "WITH added AS (INSERT INTO item (name) VALUES ('one') RETURNING id) "
            "SELECT id FROM added"
        ),
        text("/* by hand */ INSERT INTO item (name) VALUES ('one')"),
        text("DO $$ BEGIN INSERT INTO item (name) VALUES ('one'); END $$"),
        text("EXPLAIN ANALYZE INSERT INTO item (name) VALUES ('one')"),
    ],
)
async def test_after_a_block_that_has_written_in_an_unusual_way(
    flavour: Flavour, tried: Tried, observer: Observer, statement: Any
) -> None:
    def body(session: Session) -> None:
        session.execute(statement)

    async def block() -> None:
        await flavour.work(body)

    check_once(tried, await tried.request(block))
    assert observer.names() == ["one"]


# Several databases


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Flavour]:
    """A second database."""
    url = f"sqlite:///{tmp_path}/other.db"
    other = Flavour("sqlite3", url, Database(url, name="other"))
    empty_tables(url)
    yield other
    await check_nothing_is_left(other)
    await other.dispose()


@FEW
async def test_when_one_of_several_databases_has_committed(
    flavour: Flavour, other: Flavour, tried: Tried
) -> None:
    async def endpoint() -> None:
        tried.attempts.append(current_unit().attempt)
        await tried.write()
        await other.do(await other.db.session(), tried.add)

    app = FastAPI()
    databases = [flavour.db, other.db]
    app.add_middleware(DBSessionMiddleware, db=databases, options=THREE)
    app.post("/")(endpoint)
    with commit_faults(other.db, Conflict()):
        reply = await call(app, "POST", "/")

    assert (reply.status, tried.attempts) == (500, [1])
    assert len(Observer(flavour.url).names()) == 1


class Layers:
    """An application in two middlewares, each with a database of its own."""

    def __init__(self, outer: Flavour, inner: Flavour, **options: Any) -> None:
        self.attempts: list[tuple[int, int]] = []
        self._outer, self._inner = outer, inner
        app = FastAPI()
        app.post("/")(transactional(**options)(self._endpoint()))
        within = DBSessionMiddleware(app, inner.db)
        self._around: UnitOfWork | None = None

        async def between(scope: Message, receive: Any, send: Any) -> None:
            self._around = current_unit()
            await within(scope, receive, send)

        self.app = DBSessionMiddleware(between, outer.db)

    def _endpoint(self) -> Any:
        async def endpoint() -> None:
            assert self._around is not None
            self.attempts.append((self._around.attempt, current_unit().attempt))
            for each in (self._outer, self._inner):
                await each.do(await each.db.session(), self._add)

        return endpoint

    def _add(self, session: Session) -> None:
        add_item(session, f"attempt {len(self.attempts)}")


@FEW
async def test_when_a_middleware_further_in_has_committed(
    flavour: Flavour, other: Flavour
) -> None:
    layers = Layers(flavour, other, attempts=3)

    with commit_faults(flavour.db, Conflict()):
        reply = await call(layers.app, "POST", "/")

    assert (reply.status, layers.attempts) == (500, [(1, 1)])
    assert b"partial-commit" in reply.body
    assert (Observer(flavour.url).names(), Observer(other.url).names()) == (
        [],
        ["attempt 1"],
    )


@FEW
async def test_middlewares_do_not_multiply_the_attempts(
    flavour: Flavour, other: Flavour
) -> None:
    layers = Layers(flavour, other, attempts=3)

    with commit_faults(other.db, *(Conflict() for _ in range(3))):
        reply = await call(layers.app, "POST", "/")

    assert type(reply.error) is Conflict
    assert layers.attempts == [(1, 1), (2, 1), (3, 1)]
