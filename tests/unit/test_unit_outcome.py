"""The unit of work in users' hands: what it says, and how it refuses once over."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from support.asgi import Message, call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, only
from support.models import add_item, add_orphan
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    Outcome,
    SessionEndedError,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork._unit.unit import Unit

pytestmark = pytest.mark.anyio


# What it says of itself


async def test_an_open_unit_knows_no_outcome(db: AsyncDatabase) -> None:
    async with db.transaction():
        unit = current_unit()
        assert (unit.outcome, unit.reason) == (None, "")
        assert repr(unit) == "<UnitOfWork open>"


def noting(
    units: list[UnitOfWork], body: Callable[[Session], Any]
) -> Callable[[Session], Any]:
    """Give *body*, which also adds its unit to *units*."""

    def noted(session: Session) -> Any:
        units.append(current_unit())
        return body(session)

    return noted


def nothing(session: Session) -> None:
    pass


def stores(session: Session) -> None:
    add_item(session)


def fails(session: Session) -> None:
    add_item(session)
    raise LookupError


def doomed(session: Session) -> None:
    add_item(session)
    current_unit().rollback_only("dry run")


def lost(session: Session) -> None:
    add_orphan(session)


@only("sqlite3", "aiosqlite", "asyncpg")
@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (stores, Outcome.COMMITTED, "the block ended"),
        (nothing, Outcome.EMPTY, "no transaction was begun"),
        (fails, Outcome.ROLLED_BACK, "LookupError was raised"),
        (doomed, Outcome.ROLLED_BACK, "dry run"),
        (lost, Outcome.ROLLED_BACK, "COMMIT failed: IntegrityError"),
    ],
)
async def test_a_block_knows_its_outcome_and_why(
    flavour: Flavour, body: Callable[[Session], Any], outcome: Outcome, reason: str
) -> None:
    units: list[UnitOfWork] = []

    with suppress(Exception):
        await flavour.work(noting(units, body))

    assert (units[0].outcome, units[0].reason) == (outcome, reason)
    assert repr(units[0]) == f"<UnitOfWork {outcome.value}: {reason}>"


def refused(session: Session) -> None:
    add_item(session)
    raise HTTPException(403)


def returned(session: Session) -> Response:
    add_item(session)
    return Response(status_code=418)


def insisted(session: Session) -> Response:
    current_unit().commit_anyway()
    return returned(session)


@only("sqlite3", "aiosqlite", "asyncpg")
@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (stores, Outcome.COMMITTED, "status 200"),
        (nothing, Outcome.EMPTY, "no transaction was begun"),
        (refused, Outcome.ROLLED_BACK, "HTTPException was raised"),
        (returned, Outcome.ROLLED_BACK, "status 418"),
        (insisted, Outcome.COMMITTED, "commit_anyway()"),
        (fails, Outcome.ROLLED_BACK, "LookupError was raised"),
    ],
)
async def test_a_request_knows_its_outcome_and_why(
    flavour: Flavour, body: Callable[[Session], Any], outcome: Outcome, reason: str
) -> None:
    units: list[UnitOfWork] = []

    await call(serve_fastapi(flavour, noting(units, body)), "POST", "/")

    assert (units[0].outcome, units[0].reason) == (outcome, reason)


async def test_what_hooks_alone_have_written_counts_as_well(
    flavour: Flavour,
) -> None:
    units: list[UnitOfWork] = []

    async def write() -> None:
        await flavour.do(flavour.db.current, add_item)

    async def endpoint(scope: Message, receive: Any, send: Any) -> None:
        units.append(current_unit())
        current_unit().before_commit(write)
        await Response()(scope, receive, send)

    await call(DBSessionMiddleware(endpoint, flavour.db), "POST", "/")

    assert units[0].outcome is Outcome.COMMITTED


async def test_the_outcome_is_there_while_the_response_leaves(flavour: Flavour) -> None:
    units: list[UnitOfWork] = []
    outcomes: list[Outcome | None] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)

    def look(message: Message) -> None:
        outcomes.append(units[0].outcome)

    await call(serve_fastapi(flavour, body), "POST", "/", on_message=look)

    assert set(outcomes) == {Outcome.COMMITTED}


# When it is over


METHODS = {
    "before_commit": [print],
    "on_commit": [print],
    "on_rollback": [print],
    "rollback_only": [],
    "commit_anyway": [],
}


@pytest.mark.parametrize("method", METHODS)
async def test_an_ended_unit_refuses_and_names_the_remedy(
    db: AsyncDatabase, method: str
) -> None:
    async with db.transaction():
        unit = current_unit()

    with pytest.raises(SessionEndedError, match=r"has ended .*db\.transaction\("):
        getattr(unit, method)(*METHODS[method])


async def test_an_ended_unit_is_no_current_one(flavour: Flavour) -> None:
    found: list[Exception] = []

    async def task() -> None:
        for look in (current_unit, lambda: flavour.db.current):
            with pytest.raises(SessionEndedError, match=r"db\.transaction") as caught:
                look()
            found.append(caught.value)

    def body(session: Session) -> Response:
        add_item(session)
        return PlainTextResponse("ok", background=BackgroundTask(task))

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.error, len(found)) == (None, 2)
    assert "status 200" in str(found[0])


async def test_a_background_task_may_open_a_unit_of_any_kind(flavour: Flavour) -> None:
    units: list[UnitOfWork] = []

    async def task() -> None:
        for nested in ("own", "join", "savepoint"):
            await flavour.work(lambda s: units.append(current_unit()), nested=nested)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/")(lambda: PlainTextResponse("ok", background=BackgroundTask(task)))
    reply = await call(app, "GET", "/")

    assert (reply.error, len({*units})) == (None, 3)


async def test_an_ended_unit_lets_go_of_its_session_and_hooks(
    db: AsyncDatabase,
) -> None:
    class Order:
        pass

    async def hook(order: Order) -> None:  # in a thread it may still be held there
        pass

    async with db.transaction() as session:
        unit = current_unit()
        unit.on_commit(hook, order := Order())
    left = [weakref.ref(session), weakref.ref(order)]
    del session, order
    gc.collect()

    assert [ref() for ref in left] == [None, None]
    assert unit.outcome is Outcome.EMPTY


# Misuse of blocks


async def test_a_block_can_not_be_entered_twice(db: AsyncDatabase) -> None:
    block = db.transaction()
    async with block:
        pass

    with pytest.raises(UsageError, match="can't be entered twice"):
        await block.__aenter__()


async def test_nested_is_one_of_three(db: AsyncDatabase) -> None:
    wrong: Any = "yes"

    with pytest.raises(
        UsageError, match=r"nested is 'yes'; .*'own', 'join', 'savepoint'"
    ):
        db.transaction(nested=wrong)


async def test_a_block_that_is_left_elsewhere_leaves_the_unit_there_alone(
    db: AsyncDatabase,
) -> None:
    async def generate() -> AsyncIterator[None]:
        async with db.transaction():
            yield

    async with db.transaction() as session:
        generator = generate()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]  # it is one
        await generator.aclose()  # type: ignore[attr-defined]

        assert db.current is session


class Thing:
    """Something that a request carries along."""


async def test_requests_leave_no_units_to_the_garbage_collector(
    flavour: Flavour,
) -> None:
    app = serve_fastapi(flavour, lambda session: session.scalar(text("SELECT 1")))
    await call(app, "POST", "/")
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(each, Unit) for each in gc.get_objects())
        for _ in range(20):
            assert (await call(app, "POST", "/")).status == 200
        after = sum(isinstance(each, Unit) for each in gc.get_objects())
    finally:
        gc.enable()

    assert after - before < 5  # a thread may keep its latest context


@only("asyncpg")  # no driver has any part in this
async def test_requests_without_a_database_leave_nothing_to_it_either(
    flavour: Flavour,
) -> None:
    async def app(scope: Message, receive: Any, send: Any) -> None:
        exchanges.append(weakref.ref(scope["state"].provider))
        await PlainTextResponse("pong")(scope, receive, send)

    exchanges: list[weakref.ref[object]] = []
    gc.disable()
    try:
        await call(DBSessionMiddleware(app, flavour.db), "GET", "/")
    finally:
        gc.enable()

    assert exchanges[0]() is None


@only("asyncpg", "psycopg-async")
async def test_an_ended_unit_lets_go_of_its_request(flavour: Flavour) -> None:
    """The transport of a pooled connection keeps the context it was made in."""
    left: list[weakref.ref[Thing]] = []

    app = serve_fastapi(flavour, add_item)

    @app.post("/thing")
    async def endpoint(request: Request) -> None:
        request.state.thing = thing = Thing()
        left.append(weakref.ref(thing))
        await flavour.do(await flavour.db.session(request), add_item)
        raise HTTPException(400)

    reply = await call(app, "POST", "/thing")
    gc.collect()

    assert (reply.status, left[0]()) == (400, None)
    assert flavour.db.pool_status().idle == 1
