"""P9: pool and threads can not starve each other; who waits is served in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.crowds import Crowded, to_event
from support.flavours import SYNC, Flavour, Observer, everywhere, only
from support.holding import holding, running
from support.models import add_item, names
from unitwork import DBSessionMiddleware
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

CROWD = 150  # more than the pool has connections and the framework threads: 5 + 40


class Answer(BaseModel):
    """A response model of a `def` endpoint is checked in one more thread."""

    count: int


def count(session: Session) -> Answer:
    return Answer(count=len(names(session)))


def by_dependency(flavour: Flavour) -> Any:
    return flavour.db.session


def by_request_state(flavour: Flavour) -> Any:
    def session(request: Request) -> Any:
        return request.state.db

    return session


def by_current(flavour: Flavour) -> Any:
    def session() -> Any:
        return flavour.db.current

    return session


def by_dependency_that_queries(flavour: Flavour) -> Any:
    injected = Depends(flavour.db.session)

    def session(session: Session = injected) -> Session:
        names(session)
        return session

    return session


def by_state_that_queries(flavour: Flavour) -> Any:
    def session(request: Request) -> Session:
        session: Session = request.state.db
        names(session)
        return session

    return session


WAYS = [
    by_dependency,
    by_request_state,
    by_current,
    by_dependency_that_queries,
    by_state_that_queries,
]


def endpoint_by(dependency: Any) -> Callable[..., Answer]:
    injected = Depends(dependency)

    def endpoint(session: Session = injected) -> Answer:
        return count(session)

    return endpoint


async def crowd(app: FastAPI, *paths: str) -> list[Reply]:
    """Make `CROWD` requests at once, to each of *paths* in turn."""
    calls = (call(app, "GET", paths[n % len(paths)]) for n in range(CROWD))
    return await asyncio.gather(*calls)


def statuses(replies: list[Reply]) -> set[int | None]:
    return {reply.status for reply in replies}


# Pool and threads


@only(*SYNC)
@pytest.mark.parametrize("way", WAYS)
async def test_a_crowd_of_sync_requests_is_served_by_a_small_pool(
    app: FastAPI, flavour: Flavour, way: Callable[[Flavour], Any]
) -> None:
    app.get("/")(endpoint_by(way(flavour)))

    replies = await crowd(app, "/")

    assert statuses(replies) == {200}


@only(*SYNC, "pymysql")
async def test_a_crowd_that_comes_by_every_way_at_once_is_served(
    app: FastAPI, flavour: Flavour
) -> None:
    for way in WAYS:
        app.get(f"/{way.__name__}")(endpoint_by(way(flavour)))

    replies = await crowd(app, *(f"/{way.__name__}" for way in WAYS))

    assert statuses(replies) == {200}


@only(*SYNC)
async def test_two_tasks_that_ask_for_the_session_at_once_take_one_place(
    crowded: Crowded,
) -> None:
    db = crowded.flavour.db
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    @app.get("/")
    async def ask_twice(request: Request) -> bool:
        asked = (db.session(request) for _ in range(2))
        one, two = await asyncio.gather(*asked)
        return one is two

    async with running(call(app, "GET", "/")) as request:
        await crowded.waiting(1)
        await crowded.release()
        reply = await request

    assert (reply.status, reply.json) == (200, True)


@only(*SYNC)
async def test_one_of_two_tasks_that_ask_at_once_may_give_up(crowded: Crowded) -> None:
    db = crowded.flavour.db
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    @app.get("/")
    async def ask_twice(request: Request) -> None:
        async with running(db.session(request)) as one:
            await crowded.waiting(1)
            async with running(db.session(request)) as two:
                await checkpoint()
                one.cancel()
                await asyncio.wait((one,))
                await crowded.release()
                await two

    assert (await call(app, "GET", "/")).status == 200


@only(*SYNC)
async def test_background_tasks_with_blocks_of_their_own_join_the_crowd(
    app: FastAPI, flavour: Flavour
) -> None:
    done: list[Answer] = []
    injected = Depends(flavour.db.session)

    def later() -> None:
        with flavour.db.transaction() as session:
            done.append(count(session))

    @app.get("/")
    def endpoint(tasks: BackgroundTasks, session: Session = injected) -> Answer:
        tasks.add_task(later)
        return count(session)

    replies = await crowd(app, "/")

    assert statuses(replies) == {200}
    assert len(done) == CROWD


@only(*SYNC, "pymysql")
async def test_requests_that_leave_the_database_alone_do_not_wait_for_it(
    app: FastAPI, flavour: Flavour
) -> None:
    with holding(flavour) as hold:
        await flavour.dispose()  # SQLite: new connections know the statement
        app.get("/held")(flavour.endpoint(hold.execute))
        app.get("/other")(lambda: {"ok": True})
        async with running(crowd(app, "/held")) as held:
            await hold.reached(5)
            reply = await call(app, "GET", "/other")
            assert not held.done()
            hold.release()
            replies = await held

    assert reply.json == {"ok": True}
    assert statuses(replies) == {200}


@only(*SYNC, "pymysql")
async def test_an_ending_needs_none_of_the_threads_of_the_framework(
    app: FastAPI, flavour: Flavour, observer: Observer, one_thread: None
) -> None:
    taken, ended = threading.Event(), threading.Event()
    takers: list[asyncio.Task[bool]] = []

    def take() -> bool:
        taken.set()
        return ended.wait(10)

    @app.post("/")
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, lambda s: add_item(s).id)
        takers.append(asyncio.create_task(to_thread.run_sync(take)))
        await to_event(taken)

    reply = await call(app, "POST", "/")
    ended.set()

    assert reply.status == 200
    assert observer.names() == ["one"]
    assert await takers[0] is True


@pytest.fixture
async def one_thread() -> AsyncIterator[None]:
    """The framework has but one."""
    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    yield
    limiter.total_tokens = before


# Waiting for a place


@only(*SYNC)
@pytest.mark.parametrize("way", WAYS)
async def test_those_who_wait_for_a_connection_get_it_in_the_order_they_came(
    crowded: Crowded, way: Callable[[Flavour], Any]
) -> None:
    app = crowded.serve(way)
    answers: list[int] = []

    async def get(number: int) -> None:
        answers.append((await call(app, "GET", f"/{number}")).json)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(get(number))
            await crowded.waiting(number + 1)
        await crowded.release()

    assert answers == [0, 1, 2, 3, 4]


@only(*SYNC)
@pytest.mark.parametrize("way", WAYS)
async def test_one_who_is_cancelled_while_he_waits_gives_his_place_up(
    crowded: Crowded, way: Callable[[Flavour], Any]
) -> None:
    app = crowded.serve(way)
    async with running(call(app, "GET", "/1")) as first:
        await crowded.waiting(1)
        async with running(call(app, "GET", "/2")) as second:
            await crowded.waiting(2)
            first.cancel()
            await asyncio.wait((first,))
            await crowded.release()
            reply = await second

    assert first.cancelled()
    assert (reply.status, reply.json) == (200, 2)


@everywhere
async def test_who_waits_in_vain_for_a_connection_is_told_to_come_back(
    flavour: Flavour,
) -> None:
    hasty = flavour.another(pool_size=1, max_overflow=0, pool_timeout=0.05)
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=hasty.db)
    app.get("/")(hasty.endpoint(lambda session: len(names(session))))
    with holding(hasty) as hold:
        async with running(hasty.work(hold.execute)) as holder:
            await hold.reached()
            reply = await call(app, "GET", "/")
            hold.release()
            await holder

    assert reply.status == 503
    assert (b"retry-after", b"1") in reply.starts[0]["headers"]
    assert (await call(app, "GET", "/")).status == 200
    await hasty.dispose()
