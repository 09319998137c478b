"""Two databases that are committed as one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from support.asgi import call
from support.models import Item, add_item, add_orphan, names
from support.pages import statements
from support.pairs import COMMIT, PREPARE, Pair
from support.twophase import ALL, NOTHING, SOME, add, only_pairs
from support.websocket import Socket
from unitwork import (
    DBSessionMiddleware,
    Outcome,
    UsageError,
    current_unit,
    transactional,
)

pytestmark = pytest.mark.anyio


# What it does


async def test_both_are_committed(pair: Pair) -> None:
    reply = await pair.post(add, add)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert pair.seen() == ALL
    assert pair.units[0].outcome is Outcome.COMMITTED
    assert pair.hooks == ["on_commit"]


async def test_all_are_prepared_before_the_first_commits_and_in_order(
    pair: Pair,
) -> None:
    seen: list[str] = []
    for side in pair.sides:
        for words in (*PREPARE, *COMMIT):
            mark = words.decode()
            side.proxy.when(words, lambda side=side, m=mark: seen.append(side.name + m))

    await pair.post(add, add)

    made = [(step.split(" ")[0], "COMMIT" in step) for step in seen]
    kinds = ["PREPARE" if not commit else "COMMIT" for _, commit in made]
    assert kinds == ["PREPARE", "PREPARE", "COMMIT", "COMMIT"]
    assert [step.startswith("first") for step in seen] == [True, False, True, False]


async def test_a_failure_rolls_both_back(pair: Pair) -> None:
    def fail(session: Session) -> None:
        add_item(session)
        raise LookupError

    reply = await pair.post(add, fail)

    assert type(reply.error) is LookupError
    assert pair.seen() == NOTHING
    assert pair.hooks == ["on_rollback"]


@only_pairs(("psycopg", "asyncpg"), ("asyncpg", "psycopg"), ("pymysql", "asyncpg"))
async def test_a_second_that_fails_at_commit_leaves_nothing_in_the_first(
    pair: Pair,
) -> None:
    reply = await pair.post(add, add_orphan)

    assert (reply.status, type(reply.error)) == (500, IntegrityError)
    assert pair.seen() == NOTHING
    assert pair.second.observer.children() == 0
    assert pair.units[0].outcome is Outcome.ROLLED_BACK
    assert pair.hooks == ["on_rollback"]


@only_pairs(("psycopg", "psycopg"), ("asyncpg", "asyncpg"))
async def test_postgresql_alone_pays_for_nothing(pair: Pair) -> None:
    with statements(pair.first.flavour.db.engine) as sent:
        reply = await pair.post(add, None)

    assert reply.status == 200
    assert [sql.split()[0] for sql in sent] == ["BEGIN", "INSERT", "COMMIT"]


@only_pairs(("psycopg", "psycopg"), ("asyncpg", "asyncpg"))
async def test_one_that_has_only_read_is_not_prepared(pair: Pair) -> None:
    with statements(pair.second.flavour.db.engine) as sent:
        reply = await pair.post(names, add)

    assert reply.status == 200
    assert "PREPARE" not in " ".join(sent)
    assert pair.seen() == ([], ["one"])


@only_pairs(("pymysql", "pymysql"), ("asyncmy", "asyncmy"))
async def test_mariadb_alone_is_committed_in_one_phase(pair: Pair) -> None:
    with statements(pair.first.flavour.db.engine) as sent:
        reply = await pair.post(add, None)

    assert reply.status == 200
    assert [sql.split("'")[0].strip() for sql in sent if "XA" in sql] == [
        "XA START",
        "XA END",
        "XA COMMIT",
    ]
    assert sent[-1].endswith("ONE PHASE") or sent[-2].endswith("ONE PHASE")
    assert pair.seen() == (["one"], [])


@only_pairs(("pymysql", "asyncmy"))
async def test_what_is_committed_by_hand_in_the_middle_stays(pair: Pair) -> None:
    def by_hand(session: Session) -> None:
        add_item(session)
        session.commit()
        add_item(session, "two")
        raise LookupError

    await pair.post(by_hand, add)

    assert pair.seen() == (["one"], [])


@only_pairs(("pymysql", "asyncmy"), ("asyncmy", "asyncpg"))
async def test_savepoints_work_in_both(pair: Pair) -> None:
    def part(session: Session) -> None:
        add_item(session)
        with pytest.raises(IntegrityError), session.begin_nested():
            add_item(session)

    assert (await pair.post(part, part)).status == 200
    assert pair.seen() == ALL


async def test_a_second_unit_finds_clean_connections(pair: Pair) -> None:
    app = pair.app(
        lambda s: s.add(Item(name=f"{len(names(s))}")),
        lambda s: s.add(Item(name=f"{len(names(s))}")),
    )

    replies = [await call(app, "POST", "/") for _ in range(4)]

    assert [reply.status for reply in replies] == [200] * 4
    assert pair.seen() == (["0", "1", "2", "3"], ["0", "1", "2", "3"])


# Streams and messages


@only_pairs(("asyncmy", "asyncmy"), ("asyncmy", "asyncpg"))
async def test_a_transaction_kept_for_a_stream_is_not_mixed_with_a_later_one(
    pair: Pair,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=pair.databases, twophase=True)

    @app.get("/")
    @transactional(stream=True)
    async def endpoint() -> StreamingResponse:
        first, second = (side.flavour.db.current for side in pair.sides)
        await first.scalars(select(Item))

        async def rows() -> AsyncIterator[str]:
            yield "begun"
            first.add(Item(name="one"))
            await second.run_sync(add)
            yield "ended"

        return StreamingResponse(rows())

    reply = await call(app, "GET", "/")

    assert type(reply.error) is UsageError
    assert "kept open for a stream" in str(reply.error)
    assert pair.seen() == NOTHING


@only_pairs(("asyncpg", "asyncmy"), ("asyncmy", "asyncmy"))
async def test_each_message_of_a_websocket_is_committed_as_one(pair: Pair) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=pair.databases, twophase=True)

    @app.websocket("/")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        for number in range(3):
            for side in pair.sides:
                session = await side.flavour.db.session()
                await session.run_sync(add_item, str(number))
            await websocket.send_text("done")

    async with Socket(app, "/") as socket:
        for _ in range(3):
            await socket.receive()

    assert pair.seen() == (["0", "1", "2"], ["0", "1", "2"])


def roll_back_at_commit(session: Session) -> None:
    add_item(session)
    unit = current_unit()
    event.listen(session, "before_commit", lambda _: unit.rollback_only("late"))


@only_pairs(*SOME)
@pytest.mark.parametrize(
    "bodies", [(roll_back_at_commit, add), (add, roll_back_at_commit)]
)
async def test_a_rollback_that_is_requested_before_prepare_undoes_both(
    pair: Pair, bodies: tuple[Any, Any]
) -> None:
    reply = await pair.post(*bodies)

    assert (reply.status, reply.error) == (200, None)
    assert pair.units[0].outcome is Outcome.ROLLED_BACK
    assert (pair.hooks, pair.seen()) == (["on_rollback"], NOTHING)
    assert pair.prepared() == []
