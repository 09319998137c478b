"""A second attempt, and a client that waits for it or has left."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from weakref import ReferenceType, ref

import httpx
import pytest
from starlette.requests import Request

from support.asgi import Message, call, http_scope
from support.conflicts import Conflict
from support.flavours import FEW, Observer, only
from support.models import add_item, names
from support.replaying import Replayed, send_chunks
from support.servers import SERVERS, Serve
from unitwork import TransactionOptions, current_unit
from unitwork.retry import RetryPolicy

pytestmark = pytest.mark.anyio


@FEW
async def test_a_disconnect_is_still_seen_by_a_later_attempt(
    replayed: Replayed,
) -> None:
    gone = asyncio.Event()

    async def endpoint(request: Request) -> None:
        await replayed.fail_once()
        replayed.seen.append(await request.is_disconnected())
        replayed.seen.append(await request.is_disconnected())
        gone.set()
        replayed.seen.append((await request.receive())["type"])

    await replayed.request(endpoint, gone=gone)

    assert replayed.seen == [False, False, "http.disconnect"]


@FEW
async def test_a_client_that_has_left_is_not_served_again(replayed: Replayed) -> None:
    gone = asyncio.Event()

    async def endpoint() -> None:
        gone.set()
        await replayed.fail_once()

    retry = RetryPolicy(first_wait=60, longest_wait=60, give_up_after=100)
    reply = await call(replayed.serve(endpoint, retry=retry), "POST", "/", gone=gone)

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])
    assert reply.error is not None
    assert "the client has left" in reply.error.__notes__[0]
    assert Observer(replayed.flavour.url).names() == []


@FEW
async def test_a_client_that_leaves_during_the_wait_ends_it(replayed: Replayed) -> None:
    gone = asyncio.Event()
    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: asyncio.get_running_loop().call_soon(gone.set),
    )

    reply = await call(
        replayed.serve(replayed.fail_once, retry=retry), "POST", "/", gone=gone
    )

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])


@FEW
async def test_it_is_noticed_whatever_of_the_body_was_read(replayed: Replayed) -> None:
    gone = asyncio.Event()

    async def endpoint(request: Request) -> None:
        await request.body()
        await replayed.fail_once()

    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: gone.set(),
    )
    reply = await call(replayed.serve(endpoint, retry=retry), "POST", "/", gone=gone)

    assert (type(reply.error), replayed.attempts) == (Conflict, [1])


@FEW
async def test_an_attempt_that_was_told_so_is_the_last(replayed: Replayed) -> None:
    """Some servers say it once only."""
    messages = [
        {"type": "http.request", "body": b"", "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def endpoint(request: Request) -> None:
        await request.receive()
        await request.receive()
        await replayed.fail_once()

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None: ...

    app = replayed.serve(endpoint)
    with pytest.raises(Conflict):
        await app(http_scope("POST", "/"), receive, send)

    assert replayed.attempts == [1]


@FEW
@pytest.mark.parametrize("serve", SERVERS)
async def test_behind_a_real_server(replayed: Replayed, serve: Serve) -> None:
    async def endpoint(data: dict[str, int]) -> dict[str, int]:
        await replayed.fail_once()
        return data

    app = replayed.serve(endpoint)
    async with (
        serve(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        reply = await client.post("/", json={"a": 1})
        assert (reply.status_code, reply.json()) == (200, {"a": 1})
        assert (await client.post("/", json={"a": 2})).json() == {"a": 2}

    assert replayed.attempts == [1, 2, 1]


@FEW
async def test_a_request_that_is_cancelled_while_it_waits_leaves_nothing(
    replayed: Replayed,
) -> None:
    waits = asyncio.Event()
    retry = RetryPolicy(
        first_wait=60,
        longest_wait=60,
        give_up_after=100,
        before_retry=lambda retry: waits.set(),
    )
    app = replayed.serve(replayed.fail_once, retry=retry)
    request = asyncio.create_task(call(app, "POST", "/"))
    await waits.wait()
    await asyncio.sleep(0)
    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request
    assert replayed.attempts == [1]


@FEW
async def test_hundreds_of_attempts_are_no_deep_stack(replayed: Replayed) -> None:
    async def endpoint(request: Request) -> int:
        replayed.attempts.append(current_unit().attempt)
        await request.body()
        session = await replayed.flavour.db.session()
        await replayed.flavour.do(session, lambda s: add_item(s) and None)
        if len(replayed.attempts) < 500:
            raise Conflict
        return len(replayed.attempts)

    options = TransactionOptions(attempts=500)
    retry = RetryPolicy(longest_wait=0, give_up_after=100)
    app = replayed.serve(endpoint, options=options, retry=retry)

    assert (await send_chunks(app, b"one", b"two")).json == 500
    assert replayed.attempts == list(range(1, 501))


@only("asyncpg")  # a thread may hold on to what it has worked for
@pytest.mark.parametrize("used", [True, False])
async def test_a_request_that_may_be_run_again_is_freed_at_once(
    replayed: Replayed, used: bool
) -> None:
    units: list[ReferenceType[Any]] = []

    async def endpoint() -> None:
        units.append(ref(current_unit()))
        if used:
            session = await replayed.flavour.db.session()
            await replayed.flavour.do(session, names)

    app = replayed.serve(endpoint)
    await call(app, "POST", "/")  # a transport keeps the context that it is made in
    gc.collect()
    gc.disable()
    try:
        assert (await call(app, "POST", "/")).status == 200
        assert units[1]() is None
    finally:
        gc.enable()
