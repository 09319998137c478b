"""Retries: what is run once more. Most conflicts are real."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import call
from support.conflicts import Conflict, Race, write_from_outside
from support.endpoints import serve_bare, serve_fastapi, serve_starlette
from support.flavours import (
    FEW,
    MARIADB,
    POSTGRESQL,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.models import Item, add_item, names
from support.tried import Tried
from unitwork import (
    Classification,
    DBSessionMiddleware,
    Kind,
    TransactionOptions,
    current_unit,
)
from unitwork.retry import RetryPolicy
from unitwork.testing import commit_faults

pytestmark = pytest.mark.anyio

FRAMEWORKS = [serve_fastapi, serve_starlette, serve_bare]
THREE = TransactionOptions(attempts=3)


@pytest.fixture
async def race(flavour: Flavour) -> Race:
    """A row "0", and another client that changes it once, before we do."""
    race = Race(flavour)
    await race.prepare()
    return race


async def busy(request: Request, error: Exception) -> Response:
    return JSONResponse("busy", 503)


HANDLERS = {DBAPIError: busy}


def serve(race: Race, framework: Any = serve_fastapi, **options: Any) -> Any:
    def body(session: Session) -> Response:
        return JSONResponse(race.run(session))

    return framework(race.flavour, body, options=race.options(), **options)


# What is run once more


@everywhere
async def test_a_request_that_lost_a_race_is_run_again(
    race: Race, observer: Observer
) -> None:
    reply = await call(serve(race), "GET", "/")

    assert (reply.status, reply.json, reply.complete) == (200, 10, True)
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@FEW
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_in_every_framework(
    race: Race, observer: Observer, framework: Any
) -> None:
    reply = await call(serve(race, framework), "GET", "/")

    assert (reply.status, reply.json, reply.complete) == (200, 10, True)
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@FEW
@pytest.mark.parametrize("framework", [serve_fastapi, serve_starlette])
async def test_it_does_not_matter_that_a_handler_has_made_it_a_response(
    race: Race, observer: Observer, framework: Any
) -> None:
    app = serve(race, framework, handlers=HANDLERS)

    reply = await call(app, "GET", "/")

    assert (reply.status, reply.json, reply.complete) == (200, 10, True)
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@FEW
async def test_nor_that_the_session_was_rolled_back_before_the_handler_came(
    race: Race, observer: Observer
) -> None:
    def body(session: Session) -> int:
        try:
            return race.run(session)
        except DBAPIError:
            session.rollback()
            raise

    app = serve_fastapi(race.flavour, body, handlers=HANDLERS, options=race.options())

    assert (await call(app, "GET", "/")).json == 10
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@FEW
@pytest.mark.parametrize("other", [HTTPException(503), LookupError("no such thing")])
async def test_nor_that_it_was_made_another_error(race: Race, other: Exception) -> None:
    def body(session: Session) -> int:
        try:
            return race.run(session)
        except DBAPIError:
            raise other from None

    app = serve_fastapi(race.flavour, body, options=race.options())

    assert (await call(app, "GET", "/")).json == 10
    assert race.attempts == [1, 2]


@FEW
async def test_nor_that_the_endpoint_has_made_it_a_response(race: Race) -> None:
    def body(session: Session) -> Any:
        try:
            return race.run(session)
        except DBAPIError:
            return JSONResponse("try again", 503)

    app = serve_fastapi(race.flavour, body, options=race.options())

    assert (await call(app, "GET", "/")).json == 10
    assert race.attempts == [1, 2]


@only("psycopg", "asyncpg", "pymysql")
async def test_nor_that_the_endpoint_has_swallowed_it(
    race: Race, observer: Observer
) -> None:
    def body(session: Session) -> Any:
        try:
            return race.run(session)
        except DBAPIError:
            return "all is well"

    app = serve_fastapi(race.flavour, body, options=race.options())

    assert (await call(app, "GET", "/")).json == 10
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@only("asyncpg", "psycopg")
@pytest.mark.parametrize("by_policy", [True, False])
async def test_nor_that_it_was_to_be_committed_anyway(
    race: Race, observer: Observer, by_policy: bool
) -> None:
    options = race.options(commit_when=(lambda ending: True) if by_policy else None)
    race.on_begin = lambda session: by_policy or current_unit().commit_anyway()
    app = serve_fastapi(race.flavour, race.run, handlers=HANDLERS, options=options)

    assert (await call(app, "GET", "/")).json == 10
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@only(*POSTGRESQL)
async def test_a_conflict_that_only_commit_finds(
    race: Race, observer: Observer
) -> None:
    """Write skew: both have read what the other one is to write."""
    flavour = race.flavour
    await flavour.work(lambda session: add_item(session, "other") and None)
    seen: list[str] = []

    def body(session: Session) -> str:
        seen.append(session.scalar(select(Item.name).where(Item.id == 2)) or "")
        session.execute(text("UPDATE item SET name = 'mine' WHERE id = 1"))
        if len(seen) == 1:
            write_from_outside(flavour.url, SKEW)
        return seen[-1]

    options = TransactionOptions(isolation_level="SERIALIZABLE", attempts=3)

    assert (await call(serve_fastapi(flavour, body, options=options), "POST", "/")).json
    assert (seen, observer.names()) == (["other", "after 0"], ["mine", "after 0"])


SKEW = """
    BEGIN ISOLATION LEVEL SERIALIZABLE;
    UPDATE item SET name = 'after ' || (SELECT name FROM item WHERE id = 1)
    WHERE id = 2;
    COMMIT
"""


@everywhere
async def test_a_commit_that_is_refused(flavour: Flavour, observer: Observer) -> None:
    attempts: list[int] = []

    def body(session: Session) -> None:
        attempts.append(current_unit().attempt)
        add_item(session)

    app = serve_fastapi(flavour, body, options=THREE)
    with commit_faults(flavour.db, Conflict(), Conflict()):
        reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (200, True)
    assert (attempts, observer.names()) == ([1, 2, 3], ["one"])


@FEW
async def test_a_before_commit_hook_that_lost_a_race(
    flavour: Flavour, observer: Observer
) -> None:
    attempts: list[int] = []

    def check() -> None:
        if len(attempts) == 1:
            raise Conflict

    def body(session: Session) -> None:
        attempts.append(current_unit().attempt)
        add_item(session)
        current_unit().before_commit(check)

    app = serve_fastapi(flavour, body, options=THREE)

    assert (await call(app, "POST", "/")).status == 200
    assert (attempts, observer.names()) == ([1, 2], ["one"])


@only(*POSTGRESQL)
async def test_a_connection_that_is_lost_before_commit(
    flavour: Flavour, observer: Observer
) -> None:
    attempts: list[int] = []

    def body(session: Session) -> None:
        add_item(session)
        attempts.append(current_unit().attempt)
        if len(attempts) == 1:
            observer.terminate_all()
        names(session)

    app = serve_fastapi(flavour, body, options=THREE)

    assert (await call(app, "POST", "/")).status == 200
    assert (attempts, observer.names()) == ([1, 2], ["one"])


@FEW
@pytest.mark.parametrize("handlers", [None, {Conflict: busy}])
async def test_a_block_of_its_own_inside_a_request_that_uses_no_session(
    flavour: Flavour, observer: Observer, handlers: Any
) -> None:
    attempts: list[int] = []

    def work(session: Session) -> None:
        add_item(session)
        attempts.append(current_unit().attempt)
        if len(attempts) == 1:
            raise Conflict

    async def endpoint() -> None:
        await flavour.work(work)

    app = FastAPI(exception_handlers=handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE)
    app.post("/")(endpoint)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert (attempts, observer.names()) == ([1, 1], ["one"])


# What many of them do to each other


@only("asyncpg", "psycopg", "psycopg-async")
async def test_concurrent_increments_are_all_counted(
    race: Race, observer: Observer
) -> None:
    race.lost = 0
    options = TransactionOptions(isolation_level="SERIALIZABLE", attempts=60)
    app = serve_fastapi(race.flavour, race.run, options=options)

    replies = await asyncio.gather(*(call(app, "POST", "/") for _ in range(20)))

    assert [reply.status for reply in replies] == [200] * 20
    assert sorted(reply.json for reply in replies) == list(range(20))
    assert observer.names() == ["20"]


@only("sqlite3", "aiosqlite")
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_writers_of_sqlite_do_not_find_it_locked(
    race: Race, observer: Observer, method: str
) -> None:
    race.lost = 0
    retry = RetryPolicy(rules=[upgrades_are_races])
    app = serve_fastapi(race.flavour, race.run, options=race.options(99), retry=retry)

    async def write() -> list[int | None]:
        return [(await call(app, method, "/")).status for _ in range(10)]

    assert await asyncio.gather(*(write() for _ in range(8))) == [[200] * 10] * 8
    assert observer.names() == ["80"]


def upgrades_are_races(found: Classification) -> Kind | None:
    """A GET reads first. If it writes then, SQLite does not wait for other writers."""
    return Kind.RETRY if (found.family, found.code) == ("sqlite", 5) else None


@only(*POSTGRESQL, *MARIADB)
async def test_whoever_is_chosen_to_end_a_deadlock_tries_again(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.work(lambda session: add_item(session, "red") and None)
    await flavour.work(lambda session: add_item(session, "blue") and None)
    both = asyncio.Barrier(2)
    attempts: list[int] = []

    async def endpoint(first: int, second: int) -> None:
        attempts.append(current_unit().attempt)
        session = await flavour.db.session()
        await flavour.do(session, partial(touch, first))
        if current_unit().attempt == 1:
            await both.wait()
        await flavour.do(session, partial(touch, second))

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE)
    app.post("/")(endpoint)
    paths = ["/?first=1&second=2", "/?first=2&second=1"]
    replies = await asyncio.gather(*(call(app, "POST", path) for path in paths))

    assert [reply.status for reply in replies] == [200, 200]
    assert (attempts, observer.names()) == ([1, 1, 2], ["red++", "blue++"])


def touch(number: int, session: Session) -> None:
    item = session.get_one(Item, number, with_for_update=True)
    item.name += "+"
    session.flush()


# Cancellations of the task


async def fail() -> None:
    raise LookupError


@only("asyncpg", "aiosqlite")
async def test_a_task_group_that_has_failed_before_is_no_cancellation(
    flavour: Flavour, observer: Observer
) -> None:
    """Before Python 3.13 it leaves one of its own behind."""
    tried = Tried(flavour)

    async def handle_failure() -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())

    request = tried.request(tried.write, handle_failure)
    reply = await asyncio.create_task(request)

    assert (reply.status, tried.attempts) == (200, [1, 2])
    assert observer.names() == ["attempt 2"]


@only("asyncpg", "aiosqlite")
@pytest.mark.parametrize("is_waiting", [False, True])
async def test_a_conflict_in_a_task_group_is_run_again(
    flavour: Flavour, observer: Observer, is_waiting: bool
) -> None:
    tried = Tried(flavour)

    async def conflict() -> None:
        if tried.attempts == [1]:
            raise Conflict

    async def fail_in_group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(conflict())
            if is_waiting:
                await asyncio.sleep(0)

    reply = await asyncio.create_task(tried.request(tried.write, fail_in_group))

    assert (reply.status, tried.attempts) == (200, [1, 2])
    assert observer.names() == ["attempt 2"]


@only("asyncpg", "aiosqlite")
async def test_a_cancellation_that_a_task_group_hides_is_not_run_again(
    flavour: Flavour, observer: Observer
) -> None:
    tried, is_waiting = Tried(flavour), asyncio.Event()

    async def conflict() -> None:
        try:
            is_waiting.set()
            await asyncio.Event().wait()
        finally:
            raise Conflict

    async def hide_cancellation() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(conflict())

    request = asyncio.create_task(tried.request(tried.write, hide_cancellation))
    await is_waiting.wait()
    request.cancel()
    await asyncio.wait([request])

    assert request.cancelled()
    assert (tried.attempts, observer.names()) == ([1], [])


@only("asyncpg", "aiosqlite")
async def test_a_conflict_in_place_of_a_cancellation_is_not_run_again(
    flavour: Flavour, observer: Observer
) -> None:
    tried, is_waiting = Tried(flavour), asyncio.Event()

    async def hide_cancellation() -> None:
        try:
            is_waiting.set()
            await asyncio.Event().wait()
        finally:
            raise Conflict

    request = asyncio.create_task(tried.request(tried.write, hide_cancellation))
    await is_waiting.wait()
    request.cancel()
    await asyncio.wait([request])

    assert request.cancelled()
    assert (tried.attempts, observer.names()) == ([1], [])
