"""What happens while the body of a response is on its way."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from anyio import to_thread
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import IntegrityError

from support.asgi import call
from support.flavours import MARIADB, SYNC, only
from support.models import add_item, add_orphan
from support.pool import check_pool_is_whole
from support.streams import STREAMING, Streams, abandons_cursors, each
from unitwork import UsageError, current_unit

pytestmark = pytest.mark.anyio


# Server-side cursors


@only(*STREAMING, *MARIADB)
async def test_a_cursor_that_is_open_keeps_its_transaction_to_the_last_chunk(
    streams: Streams,
) -> None:
    @streams.app.post("/")
    async def endpoint() -> StreamingResponse:
        return StreamingResponse(await streams.open())

    reply = await streams.call()

    assert (reply.body, reply.complete, reply.error) == (b"abc", True, None)
    assert streams.connections_in_use == [1, 1, 1, 1, 0]
    await check_pool_is_whole(streams.flavour)


@abandons_cursors
@only(*STREAMING)
async def test_a_cursor_that_is_open_may_not_put_off_the_commit_of_what_was_written(
    streams: Streams,
) -> None:
    @streams.app.post("/")
    async def endpoint() -> StreamingResponse:
        await streams.write("d")
        return StreamingResponse(await streams.open())

    reply = await streams.call()

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UsageError)
    assert "db.transaction()" in str(reply.error)
    assert streams.observer.names() == ["a", "b", "c"]
    await check_pool_is_whole(streams.flavour)


@only(*STREAMING, *MARIADB)
@pytest.mark.parametrize("method", ["all", "close"])
async def test_a_cursor_that_is_done_with_does_not_hold_the_commit_back(
    streams: Streams, method: str
) -> None:
    @streams.app.post("/")
    async def endpoint() -> StreamingResponse:
        await streams.write("d")
        rows = streams.kept = await streams.open()
        await finish(getattr(rows, method))
        return StreamingResponse(iter(["done"]))

    await streams.call()

    assert streams.at_start == ["a", "b", "c", "d"]


async def finish(call: Callable[[], Any]) -> None:
    result = await to_thread.run_sync(call)
    if inspect.isawaitable(result):
        await result


@only(*STREAMING)
async def test_what_is_written_while_a_cursor_is_open_is_committed_at_the_end(
    streams: Streams,
) -> None:
    async def body(rows: AsyncIterator[str]) -> AsyncIterator[str]:
        async for row in rows:
            await streams.write(row * 2)
            yield row

    streams.stream_rows(body)

    reply = await streams.call()

    assert (reply.body, reply.complete) == (b"abc", True)
    assert streams.at_start == ["a", "b", "c"]
    assert streams.at_end == ["a", "b", "c", "aa", "bb", "cc"]


@only(*STREAMING, *MARIADB)
async def test_hooks_wait_for_the_stream_that_their_transaction_waits_for(
    streams: Streams,
) -> None:
    seen: list[str] = []

    @streams.app.post("/")
    async def endpoint() -> StreamingResponse:
        current_unit().on_commit(seen.append, "committed")

        async def body(rows: Any) -> AsyncIterator[str]:
            async for row in each(rows):
                seen.append(row)
                yield row

        return StreamingResponse(body(await streams.open()))

    await streams.call()

    assert seen == ["a", "b", "c", "committed"]


@abandons_cursors
@only(*STREAMING)
async def test_a_client_that_leaves_takes_the_cursor_along(streams: Streams) -> None:
    gone = asyncio.Event()

    async def body(rows: AsyncIterator[str]) -> AsyncIterator[str]:
        async for row in rows:
            await streams.write(row * 2)
            yield row
            gone.set()
            await asyncio.Event().wait()

    streams.stream_rows(body)

    reply = await call(streams.app, "POST", "/", gone=gone)

    assert (reply.body, reply.complete) == (b"a", False)
    assert streams.observer.names() == ["a", "b", "c"]
    await check_pool_is_whole(streams.flavour)


@abandons_cursors
@only(*STREAMING)
async def test_a_stream_that_fails_rolls_back(streams: Streams) -> None:
    async def body(rows: AsyncIterator[str]) -> AsyncIterator[str]:
        async for row in rows:
            await streams.write(row * 2)
            yield row
            raise LookupError

    streams.stream_rows(body)

    reply = await streams.call()

    assert isinstance(reply.error, LookupError)
    assert (reply.body, reply.complete) == (b"a", False)
    assert streams.observer.names() == ["a", "b", "c"]
    await check_pool_is_whole(streams.flavour)


# Work in the body


async def test_what_the_body_writes_is_committed_before_the_last_chunk(
    streams: Streams,
) -> None:
    async def body() -> AsyncIterator[str]:
        yield "1"
        await streams.write("within")
        yield "2"

    streams.stream(body, after="before")

    reply = await streams.call()

    assert reply.complete
    assert streams.at_start == ["a", "b", "c", "before"]
    assert streams.at_end == ["a", "b", "c", "before", "within"]


@only(*SYNC)
async def test_a_plain_generator_may_use_the_session_too(streams: Streams) -> None:
    def endpoint(session: Any) -> StreamingResponse:
        def body() -> Iterator[str]:
            yield "1"
            add_item(session, "within")
            yield "2"

        return StreamingResponse(body())

    streams.app.post("/")(streams.flavour.endpoint(endpoint))
    reply = await streams.call()

    assert reply.complete
    assert streams.at_end == ["a", "b", "c", "within"]


async def test_a_commit_that_fails_in_the_body_cuts_the_response(
    streams: Streams,
) -> None:
    ran: list[str] = []

    @streams.app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> StreamingResponse:
        tasks.add_task(ran.append, "background")

        async def body() -> AsyncIterator[str]:
            yield "1"
            await streams.flavour.do(streams.flavour.db.current, add_orphan)
            yield "2"

        return StreamingResponse(body(), background=tasks)

    reply = await streams.call()

    assert (reply.status, reply.body, reply.complete) == (200, b"12", False)
    assert isinstance(reply.error, IntegrityError)
    assert ran == []
    assert streams.observer.children() == 0
    await check_pool_is_whole(streams.flavour)


@only(*STREAMING)
async def test_a_commit_that_a_cursor_has_put_off_and_that_fails_cuts_the_response(
    streams: Streams,
) -> None:
    async def body(rows: AsyncIterator[str]) -> AsyncIterator[str]:
        await streams.flavour.do(streams.flavour.db.current, add_orphan)
        async for row in rows:
            yield row

    streams.stream_rows(body)

    reply = await streams.call()

    assert (reply.status, reply.body, reply.complete) == (200, b"abc", False)
    assert isinstance(reply.error, IntegrityError)
    assert streams.observer.children() == 0


async def test_rollback_only_in_the_body_drops_the_work_of_the_body(
    streams: Streams,
) -> None:
    async def body() -> AsyncIterator[str]:
        yield "1"
        await streams.write("within")
        current_unit().rollback_only()
        yield "2"

    streams.stream(body, after="before")

    reply = await streams.call()

    assert reply.complete
    assert streams.at_end == ["a", "b", "c", "before"]


async def test_no_connection_is_held_while_the_body_leaves_the_database_alone(
    streams: Streams,
) -> None:
    held: list[int] = []

    async def body() -> AsyncIterator[str]:
        held.append(streams.flavour.db.pool_status().checked_out)
        yield "1"

    streams.stream(body, after="before")

    await streams.call()

    assert held == [0]
