"""`unit.outside()` in requests, sync and async, and with several databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from support.asgi import Reply, call
from support.conflicts import Conflict
from support.flavours import FEW, Flavour, Observer, only
from support.models import add_item, names
from support.releasing import checked_out, outside
from support.several import Two
from unitwork import DBSessionMiddleware, UsageError, current_unit, transactional
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio

SYNC = only("sqlite3", "psycopg")
ASYNC = only("aiosqlite", "asyncpg", "psycopg-async")


async def request(flavour: Flavour, endpoint: Any) -> Reply:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, answer_errors=False)
    app.post("/")(endpoint)
    return await call(app, "POST", "/")


@SYNC
async def test_in_a_sync_endpoint(flavour: Flavour, observer: Observer) -> None:
    held = []

    def body(session: Session) -> None:
        names(session)
        with outside():
            held.append(checked_out(flavour))
        add_item(session)

    reply = await request(flavour, flavour.endpoint(body))

    assert reply.status == 200
    assert held == [0]
    assert observer.names() == ["one"]


@SYNC
async def test_release_in_a_sync_endpoint_is_a_plain_call(flavour: Flavour) -> None:
    held = []

    def body(session: Session) -> None:
        names(session)
        current_unit().release()
        held.append(checked_out(flavour))

    assert (await request(flavour, flavour.endpoint(body))).status == 200
    assert held == [0]


@SYNC
async def test_other_requests_are_admitted_meanwhile(flavour: Flavour) -> None:
    narrow = flavour.another(pool_size=1, max_overflow=0, pool_timeout=5)
    inside, served = asyncio.Event(), asyncio.Event()

    async def waiting() -> None:
        await narrow.do(await narrow.db.session(), names)
        async with outside():
            inside.set()
            await served.wait()
        await narrow.do(narrow.db.current, lambda s: add_item(s, "two"))

    task = asyncio.create_task(request(narrow, waiting))
    await inside.wait()
    reply = await request(narrow, narrow.endpoint(lambda s: add_item(s) and None))
    served.set()

    assert (reply.status, (await task).status) == (200, 200)
    assert Observer(flavour.url).names() == ["one", "two"]
    await narrow.dispose()


@ASYNC
async def test_async_sessions_refuse_the_sync_block(flavour: Flavour) -> None:
    async with flavour.block():
        with pytest.raises(UsageError, match=r"async with unit\.outside"), outside():
            pass


@ASYNC
async def test_the_deadline_goes_on(flavour: Flavour, observer: Observer) -> None:
    @transactional(deadline=0.2)
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, names)
        async with outside():
            await asyncio.sleep(0.1)
        await flavour.do(flavour.db.current, add_item)
        await asyncio.Event().wait()

    reply = await asyncio.wait_for(request(flavour, endpoint), 30)

    assert type(reply.error).__name__ == "DeadlineExceededError"
    assert observer.names() == []


@ASYNC
async def test_the_deadline_ends_the_block(flavour: Flavour) -> None:
    @transactional(deadline=0.1)
    async def endpoint() -> None:
        await flavour.do(flavour.db.current, names)
        async with outside():
            await asyncio.Event().wait()

    reply = await request(flavour, endpoint)

    assert type(reply.error).__name__ == "DeadlineExceededError"


async def test_a_retry_runs_the_whole_request_again(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    @transactional(attempts=2)
    async def endpoint() -> None:
        session = await flavour.db.session()
        await flavour.do(session, names)
        async with outside():
            done.append("called")
        await flavour.do(session, add_item)
        if len(done) == 1:
            raise Conflict

    with no_waits():
        reply = await request(flavour, endpoint)

    assert reply.status == 200
    assert done == ["called", "called"]
    assert observer.names() == ["one"]


@FEW
async def test_a_hook_after_commit_may_call_what_goes_outside(
    flavour: Flavour, done: list[str]
) -> None:
    async def notify() -> None:
        async with outside():
            done.append("notified")

    async with flavour.block() as session:
        await flavour.do(session, add_item)
        current_unit().on_commit(done.append, "committed")
        if flavour.is_async:
            current_unit().on_commit(notify)

    assert done == ["committed", "notified"][: len(done)]


@FEW
async def test_too_late_in_a_hook_before_commit(flavour: Flavour) -> None:
    def hook() -> None:
        with outside():
            pass

    async def fail() -> None:
        async with flavour.block() as session:
            await flavour.do(session, names)
            current_unit().before_commit(hook)

    with pytest.raises(UsageError, match=r"unit of work is ending|async with"):
        await fail()


@FEW
async def test_releases_all_databases_or_none(two: Two, done: list[Any]) -> None:
    async def endpoint() -> None:
        await two.do_both(names, names)
        async with outside():
            done.append([checked_out(two.first), checked_out(two.second)])
        await two.do_both(names, add_item)
        with pytest.raises(UsageError, match="database 'second'"):
            async with outside():
                pass
        done.append([checked_out(two.first), checked_out(two.second)])

    assert (await two.request(endpoint)).status == 200
    assert done == [[0, 0], [1, 1]]
    assert two.seen() == ([], ["one"])


@ASYNC
async def test_a_client_that_leaves_inside_is_no_success(flavour: Flavour) -> None:
    unit = []

    async def endpoint() -> None:
        unit.append(current_unit())
        await flavour.do(flavour.db.current, names)
        async with outside():
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        (await request(flavour, endpoint)).json  # noqa: B018
    assert unit[0].outcome is None or unit[0].outcome.value == "rolled back"


async def test_a_stream_releases_its_connection_between_polls(
    flavour: Flavour,
) -> None:
    from fastapi.responses import StreamingResponse

    async def endpoint() -> StreamingResponse:
        session = await flavour.db.session()

        async def body() -> Any:
            for _ in range(2):
                found = await flavour.do(session, names)
                async with outside():
                    yield f"{found}{checked_out(flavour)}"

        return StreamingResponse(body())

    reply = await request(flavour, endpoint)

    assert reply.complete
    assert reply.body == b"[]0[]0"
