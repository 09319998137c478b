"""P9: the event loop is never blocked, and pool and threads never starve each other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from pydantic import BaseModel
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.databases import check_nothing_is_left
from support.flavours import POSTGRESQL, SYNC, Flavour, Observer, everywhere, only
from support.holding import LOCK, Hold, holding, running
from support.models import Child, add_item, names
from support.pool import eventually
from unitwork import (
    BlockingSessionWarning,
    DBSessionMiddleware,
    PoolTimeoutError,
    current_unit,
)
from unitwork._gate import Gate
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


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


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


@pytest.fixture
async def narrow(flavour: Flavour) -> AsyncIterator[Flavour]:
    """The same database with one connection, which is taken."""
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=5)
    await gate_of(narrow).enter()
    yield narrow
    await check_nothing_is_left(narrow)
    await narrow.dispose()


def gate_of(flavour: Flavour) -> Gate:
    gate: Gate = flavour.db._source.factory.gate
    return gate


@only(*SYNC)
async def test_two_tasks_that_ask_for_the_session_at_once_take_one_place(
    narrow: Flavour,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=narrow.db)

    @app.get("/")
    async def ask_twice(request: Request) -> bool:
        asked = (narrow.db.session(request) for _ in range(2))
        one, two = await asyncio.gather(*asked)
        return one is two

    async with running(call(app, "GET", "/")) as request:
        await eventually(lambda: gate_of(narrow).waiting == 1)
        gate_of(narrow).leave()
        reply = await request

    assert (reply.status, reply.json) == (200, True)


@only(*SYNC)
async def test_one_of_two_tasks_that_ask_at_once_may_give_up(narrow: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=narrow.db)

    @app.get("/")
    async def ask_twice(request: Request) -> None:
        async with running(narrow.db.session(request)) as one:
            await eventually(lambda: gate_of(narrow).waiting == 1)
            async with running(narrow.db.session(request)) as two:
                await checkpoint()
                one.cancel()
                await asyncio.wait((one,))
                gate_of(narrow).leave()
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


async def to_event(event: threading.Event) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, event.wait, 10)


@pytest.fixture
async def one_thread() -> AsyncIterator[None]:
    """The framework has but one."""
    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    yield
    limiter.total_tokens = before


# Waiting for a place


@pytest.fixture
async def crowded(flavour: Flavour) -> AsyncIterator[Crowded]:
    async with Crowded(flavour) as crowded:
        yield crowded


class Crowded:
    """The same database, whose only connection is in use."""

    def __init__(self, flavour: Flavour) -> None:
        options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 10}
        self.flavour = flavour.another(**options)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._hold = self._stack.enter_context(holding(self.flavour))
        work = self.flavour.work(self._hold.execute)
        self._holder = await self._stack.enter_async_context(running(work))
        await self._hold.reached()
        return self

    async def release(self) -> None:
        self._hold.release()
        await self._holder

    async def waiting(self, count: int) -> None:
        """Wait until *count* units wait for the connection."""
        await eventually(lambda: self.flavour.db.pool_status().waiting == count)

    async def __aexit__(self, *exc_info: object) -> None:
        await self.release()
        await self._stack.aclose()
        assert self.flavour.db.pool_status()[1:] == (0, 1, 0)
        await self.flavour.dispose()

    def serve(self, way: Callable[[Flavour], Any]) -> FastAPI:
        app = FastAPI(exception_handlers=exception_handlers)
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db)
        injected = Depends(way(self.flavour))

        @app.get("/{number}")
        def endpoint(number: int, session: Session = injected) -> int:
            names(session)
            return number

        return app


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


# Slow endings


@pytest.fixture
async def slow_commit(flavour: Flavour) -> AsyncIterator[Hold]:
    """A COMMIT that checks a `Child` does not end before it is let go."""
    execute(flavour, SLOW)
    with holding(flavour) as hold:
        yield hold
    execute(flavour, "DROP FUNCTION slow CASCADE")


SLOW = f"""
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON child
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()
"""


def execute(flavour: Flavour, sql: str) -> None:
    plain = make_url(flavour.url).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as connection:
        connection.execute(sql.encode())


def add_child(session: Session) -> None:
    session.add(Child(parent_id=add_item(session).id))
    session.flush()


@only(*POSTGRESQL)
async def test_others_are_served_while_a_commit_is_under_way(
    app: FastAPI, flavour: Flavour, slow_commit: Hold, observer: Observer
) -> None:
    app.post("/slow")(flavour.endpoint(add_child))
    app.get("/other")(flavour.endpoint(names))
    async with running(call(app, "POST", "/slow")) as slow:
        await slow_commit.reached()
        under_way = slow_commit.statements()
        other = await call(app, "GET", "/other")
        assert not slow.done()
        slow_commit.release()
        reply = await slow

    assert under_way == ["COMMIT"]
    assert (other.status, other.json) == (200, [])
    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
@pytest.mark.parametrize("moment", ["before_commit", "on_commit", "on_rollback"])
async def test_others_are_served_while_a_sync_hook_is_under_way(
    app: FastAPI, flavour: Flavour, moment: str
) -> None:
    started, finish = threading.Event(), threading.Event()

    def hook() -> None:
        started.set()
        assert finish.wait(10)

    def endpoint(session: Session) -> None:
        unit = current_unit()
        getattr(unit, moment)(hook)
        {"on_rollback": unit.rollback_only}.get(moment, str)()

    app.post("/hook")(flavour.endpoint(endpoint))
    app.get("/other")(flavour.endpoint(names))
    async with running(call(app, "POST", "/hook")) as request:
        await to_event(started)
        other = await call(app, "GET", "/other")
        assert not request.done()
        finish.set()
        await request

    assert other.status == 200


# A sync session in an `async def`


@only(*SYNC)
async def test_a_sync_session_in_an_async_endpoint_works_and_warns_once(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    injected = Depends(flavour.db.session)

    @app.post("/{name}")
    async def endpoint(name: str, session: Session = injected) -> None:
        add_item(session, name)

    with pytest.warns(BlockingSessionWarning, match="plain `def`") as caught:
        await call(app, "POST", "/one")
    await call(app, "POST", "/two")

    assert len(caught) == 1
    assert Path(caught[0].filename).name == "models.py"  # where it was used
    assert observer.names() == ["one", "two"]


@only(*SYNC, "pymysql")
async def test_a_sync_session_on_the_event_loop_does_not_wait_for_a_connection(
    crowded: Crowded,
) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=crowded.flavour.db)

    @app.get("/")
    async def endpoint(request: Request) -> None:
        names(request.state.db)

    with pytest.warns(BlockingSessionWarning):
        reply = await call(app, "GET", "/")

    assert isinstance(reply.error, PoolTimeoutError)
    assert "would block the event loop" in str(reply.error)


@only("asyncpg", "psycopg")
async def test_hooks_wait_for_no_thread_of_the_framework(flavour: Flavour) -> None:
    """They all may wait for a lock that the unit of the hook holds."""
    free, limiter = threading.Event(), to_thread.current_default_thread_limiter()
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/")
    async def endpoint() -> None:
        current_unit().before_commit(free.set)

    busy = [
        asyncio.create_task(to_thread.run_sync(free.wait, 10))
        for _ in range(int(limiter.total_tokens))
    ]
    await eventually(lambda: limiter.available_tokens == 0)
    reply = await call(app, "GET", "/")

    assert reply.status == 200
    assert await asyncio.gather(*busy) == [True] * len(busy)
