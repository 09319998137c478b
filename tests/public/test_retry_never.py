"""Retries: what is never run a second time, for a part of it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.conflicts import Conflict
from support.databases import check_nothing_is_left, empty_tables
from support.flavours import POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from unitwork import (
    CommitUnknownError,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    TransactionOptions,
    current_unit,
    transactional,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""
ROOMY = only("psycopg", "psycopg-async", "asyncpg")
"""Where one unit may write while another does."""
BOTH_WAYS = pytest.mark.parametrize("fault", list(CommitFault))
THREE = TransactionOptions(attempts=3)


@dataclass
class Tried:
    """What each attempt does, and how often it was done."""

    flavour: Flavour
    attempts: list[int] = field(default_factory=list)

    def add(self, session: Session) -> None:
        """Write a row that tells which attempt it is of."""
        add_item(session, f"attempt {len(self.attempts)}")

    async def request(
        self, *steps: Callable[[], Any], options: TransactionOptions = THREE
    ) -> Reply:
        """Do the *steps*, in an endpoint that fails at first and succeeds then."""

        async def endpoint() -> None:
            self.attempts.append(current_unit().attempt)
            for step in steps:
                await step()
            if len(self.attempts) == 1:
                raise Conflict

        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db, options=options)
        app.post("/")(endpoint)
        return await call(app, "POST", "/")

    async def write(self) -> None:
        """In the session of the request."""
        await self.flavour.do(await self.flavour.db.session(), self.add)

    async def write_and_commit(self) -> None:
        def body(session: Session) -> None:
            self.add(session)
            session.commit()

        await self.flavour.do(await self.flavour.db.session(), body)

    async def block(self) -> None:
        """Write in a block of its own."""
        await self.flavour.work(self.add)


@pytest.fixture
def tried(flavour: Flavour) -> Tried:
    return Tried(flavour)


def check_once(tried: Tried, reply: Reply, error: type[Exception] = Conflict) -> None:
    assert (reply.status, type(reply.error)) == (500, error)
    assert tried.attempts == [1]


async def test_without_any_of_what_follows_it_is_run_again(
    tried: Tried, observer: Observer
) -> None:
    assert (await tried.request(tried.write)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


# Somebody may have heard of it


@FEW
async def test_once_the_response_has_started(flavour: Flavour, tried: Tried) -> None:
    async def stream() -> Any:
        tried.attempts.append(current_unit().attempt)
        yield "begun"
        raise Conflict

    async def endpoint() -> StreamingResponse:
        await tried.write()
        return StreamingResponse(stream())

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE)
    app.post("/")(endpoint)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, tried.attempts) == (200, False, [1])


@FEW
async def test_when_an_on_commit_hook_has_run(tried: Tried, observer: Observer) -> None:
    def fail() -> None:
        raise Conflict

    async def hook() -> None:
        tried.attempts.append(0)  # it is the hook that fails, and not the endpoint
        current_unit().on_commit(fail)

    assert (await tried.request(tried.write, hook)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 0], ["attempt 1"])


# It is said to be done


@FEW
async def test_after_side_effect_done(tried: Tried, observer: Observer) -> None:
    async def charge() -> None:
        current_unit().side_effect_done("the card is charged")

    check_once(tried, await tried.request(tried.write, charge))
    assert observer.names() == []


@ROOMY
async def test_after_side_effect_done_in_a_block_inside(
    flavour: Flavour, tried: Tried
) -> None:
    def charge(session: Session) -> None:
        current_unit().side_effect_done()

    async def block() -> None:
        await flavour.work(charge)

    check_once(tried, await tried.request(block))


@FEW
async def test_not_even_if_a_hook_of_the_rollback_says_so(
    tried: Tried, observer: Observer
) -> None:
    async def hook() -> None:
        unit = current_unit()
        unit.on_rollback(lambda: unit.side_effect_done("the customer is told"))

    check_once(tried, await tried.request(tried.write, hook))


# It is committed, or may be


@everywhere
@BOTH_WAYS
async def test_if_the_outcome_of_commit_is_unknown(
    flavour: Flavour, observer: Observer, tried: Tried, fault: CommitFault
) -> None:
    tried.attempts.append(0)  # the endpoint itself does not fail

    with commit_faults(flavour.db, fault):
        reply = await tried.request(tried.write)

    assert (reply.status, type(reply.error)) == (500, CommitUnknownError)
    assert tried.attempts == [0, 1]
    assert len(observer.names()) == (fault is CommitFault.COMMITTED)


@only(*POSTGRESQL)
@BOTH_WAYS
async def test_but_it_is_once_the_database_has_told_that_nothing_is_stored(
    flavour: Flavour, observer: Observer, fault: CommitFault
) -> None:
    sure = flavour.another(settings=DatabaseSettings(verify_commit=True))
    tried = Tried(sure, [0])

    with commit_faults(sure.db, fault):
        reply = await tried.request(tried.write)
    await sure.dispose()

    assert reply.status == 200
    assert tried.attempts[1:] == ([1, 2] if fault is CommitFault.ROLLED_BACK else [1])
    assert len(observer.names()) == 1


@FEW
async def test_after_a_commit_by_hand(tried: Tried, observer: Observer) -> None:
    check_once(tried, await tried.request(tried.write_and_commit))
    assert observer.names() == ["attempt 1"]


@FEW
async def test_but_it_is_if_the_commit_by_hand_was_refused(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    tried.attempts.append(0)

    with commit_faults(flavour.db, Conflict()):
        reply = await tried.request(tried.write_and_commit)

    assert (reply.status, tried.attempts) == (200, [0, 1, 2])
    assert observer.names() == ["attempt 3"]


@everywhere
@BOTH_WAYS
async def test_if_the_outcome_of_a_commit_by_hand_is_unknown(
    flavour: Flavour, tried: Tried, observer: Observer, fault: CommitFault
) -> None:
    tried.attempts.append(0)

    with commit_faults(flavour.db, fault):
        reply = await tried.request(tried.write_and_commit)

    assert (reply.status, tried.attempts) == (500, [0, 1])
    assert len(observer.names()) == (fault is CommitFault.COMMITTED)


@FEW
@BOTH_WAYS
async def test_nor_if_somebody_has_swallowed_that(
    flavour: Flavour, tried: Tried, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        tried.add(session)
        try:
            session.commit()
        except Exception:
            session.rollback()
        names(session)

    async def step() -> None:
        await flavour.do(await flavour.db.session(), body)

    with commit_faults(flavour.db, fault):
        check_once(tried, await tried.request(step))


@FEW
@BOTH_WAYS
async def test_nor_in_a_begin_block_of_sqlalchemys(
    flavour: Flavour, tried: Tried, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        with session.begin():
            tried.add(session)

    async def step() -> None:
        await flavour.do(await flavour.db.session(), body)

    tried.attempts.append(0)
    with commit_faults(flavour.db, fault):
        reply = await tried.request(step)

    assert (reply.status, tried.attempts) == (500, [0, 1])


@FEW
async def test_on_an_engine_that_commits_each_statement(
    flavour: Flavour, observer: Observer
) -> None:
    loose = flavour.another(isolation_level="AUTOCOMMIT")
    tried = Tried(loose)

    check_once(tried, await tried.request(tried.write))
    await loose.dispose()
    assert observer.names() == ["attempt 1"]


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
    flavour: Flavour, tried: Tried, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        tried.add(session)
        session.commit()

    async def block() -> None:
        await flavour.work(body)

    tried.attempts.append(0)
    with commit_faults(flavour.db, fault):
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
        self.app = DBSessionMiddleware(within, outer.db)

    def _endpoint(self) -> Any:
        async def endpoint() -> None:
            unit = current_unit()
            assert unit._parent is not None
            self.attempts.append((unit._parent.attempt, unit.attempt))
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

    assert (type(reply.error), layers.attempts) == (Conflict, [(1, 1)])
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
