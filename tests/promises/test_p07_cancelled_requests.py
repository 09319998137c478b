"""P7: a request that is cancelled, at whatever moment, leaves a clean pool."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import event, make_url
from sqlalchemy.orm import Session

from support.asgi import Message, Reply, call
from support.cancelling import (
    KINDS,
    Kind,
    at_each_suspension,
    cancelled_at,
    natively,
    watched_tasks,
)
from support.flavours import Flavour, Observer, everywhere, only
from support.holding import Hold, holding, running
from support.models import Item, add_item, names
from support.pool import check_pool_is_whole, drop_idle_connections, eventually
from unitwork import DBSessionMiddleware, current_unit

pytestmark = [
    pytest.mark.anyio,
    # Cancelled while it connects, aiosqlite drops what its thread has opened meanwhile.
    # Python closes that at once, and complains from 3.13 on.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <sqlite3.Connection"
        ":pytest.PytestUnraisableExceptionWarning"
    ),
]

NOTHING = "nothing written"
# A try at TLS that is cancelled makes asyncpg complain to the event loop.
OPTIONS: dict[str, Any] = {"asyncpg": {"connect_args": {"ssl": False}}}


class Requests:
    """An application, and requests to it that a test cancels on their way."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.name = ""
        self.seen: list[Message] = []
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        self.app.post("/read")(flavour.endpoint(self.read))
        self.app.post("/write")(flavour.endpoint(self.write))
        self.app.post("/hooks")(flavour.endpoint(self.write_with_hooks))
        self.app.post("/stream")(self.stream)

    def maker(self, path: str) -> Callable[[int], Any]:
        def make(k: int) -> Any:
            self.seen.clear()
            return self.request(path, f"row {k}")

        return make

    async def request(self, path: str, name: str) -> Reply:
        self.name = name
        return await call(self.app, "POST", path, on_message=self.seen.append)

    @property
    def acknowledged(self) -> set[str]:
        """The rows that were acknowledged to the client."""
        started = [self.name for m in self.seen if m.get("status") == 200]
        bodies = [m["body"] for m in self.seen if "body" in m]
        ended = [f"{self.name} streamed"] * (bodies == [b"a", b"b", b""])
        return {*started, *ended}

    def read(self, session: Session) -> None:
        names(session)
        self.name = NOTHING

    def write(self, session: Session) -> None:
        add_item(session, self.name)

    def write_with_hooks(self, session: Session) -> None:
        self.write(session)
        current_unit().before_commit(self.before_commit, f"{self.name} before")
        current_unit().on_commit(self.on_commit, f"{self.name} after")

    async def before_commit(self, name: str) -> None:
        await self.flavour.do(self.flavour.db.current, lambda s: add_item(s, name).id)

    async def on_commit(self, name: str) -> None:
        await self.flavour.work(lambda session: add_item(session, name).id)

    async def stream(self) -> StreamingResponse:
        session, name = self.flavour.db.current, self.name
        await self.flavour.do(session, self.write)

        async def body() -> Any:
            yield b"a"
            await self.flavour.do(session, lambda s: add_item(s, f"{name} streamed").id)
            yield b"b"

        return StreamingResponse(body())


@pytest.fixture
def requests(flavour: Flavour) -> Requests:
    return Requests(flavour)


@everywhere
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/read", "/write", "/hooks", "/stream"])
async def test_cancelled_at_any_suspension_it_leaves_a_clean_pool_and_no_lie(
    requests: Requests, observer: Observer, path: str, kind: Kind
) -> None:
    async for k in at_each_suspension(requests.maker(path), kind):
        await check_pool_is_whole(requests.flavour)
        stored = observer.names()
        assert requests.acknowledged <= {*stored, NOTHING}
        assert {f"row {k} streamed"} & {*stored} <= requests.acknowledged
        await requests.request("/write", f"next {k}")

        assert requests.acknowledged == {f"next {k}"}
        assert observer.names() == [*stored, f"next {k}"]


@everywhere
@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_while_it_connects_it_leaves_nothing_behind(
    flavour: Flavour, kind: Kind
) -> None:
    plain = flavour.another(**OPTIONS.get(flavour.name, {}))
    requests = Requests(plain)
    async for _ in at_each_suspension(requests.maker("/write"), kind):
        await check_pool_is_whole(plain)
        await drop_idle_connections(plain)
    await plain.dispose()


SEED = random.randrange(10**6)
NEVER = 10**6


@everywhere
async def test_cancelled_at_random_suspensions_they_lose_nothing_that_was_acknowledged(
    flavour: Flavour, observer: Observer
) -> None:
    print(f"seed {SEED}")  # shown when it fails
    chance = random.Random(SEED)
    cancelled = flavour.another(pool_size=3, **OPTIONS.get(flavour.name, {}))
    await cancelled_at(NEVER, Requests(cancelled).request("/read", ""), natively)
    alone = Requests(cancelled).request("/write", "alone")
    usual = await cancelled_at(NEVER, alone, natively)
    moments = [NEVER] * 20 + [1] * 5 + [k % (2 * usual) + 2 for k in range(35)]
    acknowledged: dict[int, set[str]] = {moment: set() for moment in moments}

    async def client(number: int) -> None:
        requests = Requests(cancelled)
        for k, moment in enumerate(chance.sample(moments, len(moments))):
            request = requests.request("/write", f"{number} {k}")
            await cancelled_at(moment, request, natively)
            acknowledged[moment] |= requests.acknowledged
            requests.seen.clear()

    with watched_tasks():
        await asyncio.gather(*(client(number) for number in range(5)))

    assert (len(acknowledged[NEVER]), len(acknowledged[1])) == (100, 0)
    assert set().union(*acknowledged.values()) <= set(observer.names())
    await check_pool_is_whole(cancelled)
    await cancelled.dispose()


# Inside a statement


def serve_held(flavour: Flavour, hold: Hold) -> FastAPI:
    def endpoint(session: Session) -> None:
        add_item(session, "before")
        hold.execute(session)
        add_item(session, "after")

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/")(flavour.endpoint(endpoint))
    return app


@everywhere
async def test_cancelled_inside_a_statement_it_waits_for_it_and_rolls_back(
    hasty: Flavour, observer: Observer
) -> None:
    with holding(hasty) as hold:
        app = serve_held(hasty, hold)
        async with running(call(app, "POST", "/")) as request:
            await hold.reached()
            request.cancel()
            await checkpoint()
            hold.release()
            await asyncio.wait((request,))

    assert request.cancelled()
    await check_pool_is_whole(hasty)
    assert observer.names() == []


@everywhere
async def test_cancelled_inside_a_statement_without_end_it_breaks_off(
    hasty: Flavour, observer: Observer
) -> None:
    with holding(hasty) as hold:
        app = serve_held(hasty, hold)
        async with running(call(app, "POST", "/")) as request, asyncio.timeout(7):
            await hold.reached()
            request.cancel()
            await asyncio.wait((request,))

        assert request.cancelled()
        await eventually(lambda: hasty.db.pool_status().checked_out == 0)
        assert observer.names() == []


@only("sqlite3", "aiosqlite")
async def test_cancelled_while_it_waits_for_the_write_lock_it_leaves_nothing_behind(
    hasty: Flavour, observer: Observer
) -> None:
    await check_pool_is_whole(hasty)  # and connected: that needs the lock too
    begins = asyncio.Event()
    note = partial(asyncio.get_running_loop().call_soon_threadsafe, begins.set)
    event.listen(hasty.sync_engine, "checkout", lambda *_: note())
    requests = Requests(hasty)
    with sqlite3.connect(str(make_url(hasty.url).database)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        async with running(requests.request("/write", "one")) as request:
            await asyncio.wait_for(begins.wait(), 10)
            request.cancel()
            await asyncio.wait((request,), timeout=0.5)  # or SQLite waits for long
            writer.execute("ROLLBACK")
            await asyncio.wait((request,))
    writer.close()

    assert request.cancelled()
    await eventually(lambda: hasty.db.pool_status().checked_out == 0)
    assert observer.names() == []
    assert (await requests.request("/write", "two")).status == 200


# A client that leaves


@only("psycopg-async", "asyncpg", "asyncmy")
async def test_a_cancelled_request_does_not_wait_for_a_lock_to_commit(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.work(add_item)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    with holding(flavour) as hold:
        await flavour.dispose()

        @event.listens_for(Session, "before_flush")
        def wait_for_it(session: Session, *rest: Any) -> None:
            hold.execute(session)

        @app.post("/")
        async def endpoint() -> None:
            flavour.db.current.add(Item(name="two"))

        try:
            async with running(call(app, "POST", "/")) as request:
                await hold.reached()
                request.cancel()
                await asyncio.wait((request,))
                await eventually(lambda: hold.waiting() == 0)
        finally:
            event.remove(Session, "before_flush", wait_for_it)

    assert request.cancelled()
    assert observer.names() == ["one"]
