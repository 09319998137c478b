"""Behind real servers, over real connections: HTTP/1.1."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from support.flavours import Flavour, Observer, only
from support.models import add_item, add_orphan, names
from support.pool import check_pool_is_whole, eventually, until_idle
from support.servers import COMMANDS, SERVERS, Serve, parse, process, talk
from unitwork import DBSessionMiddleware
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

one_of_each_colour = only("psycopg", "asyncpg")
each_server = pytest.mark.parametrize("serve", SERVERS)


def make_app(flavour: Flavour, handlers: Any = None) -> FastAPI:
    app = FastAPI(exception_handlers=handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.get("/items")(flavour.endpoint(names))
    app.post("/orphan")(flavour.endpoint(add_orphan))

    @app.post("/items/{name}")
    async def create(name: str) -> str:
        await flavour.do(flavour.db.current, lambda s: add_item(s, name).id)
        return name

    return app


@each_server
@one_of_each_colour
async def test_what_was_acknowledged_is_there_on_another_connection(
    flavour: Flavour, serve: Serve
) -> None:
    async with (
        serve(make_app(flavour)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as writer,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as reader,
    ):
        for number in range(100):
            assert (await writer.post(f"/items/{number}")).status_code == 200
            assert str(number) in (await reader.get("/items")).json()


@each_server
@one_of_each_colour
@pytest.mark.parametrize(
    ("handlers", "status"), [(None, 500), (exception_handlers, 409)]
)
async def test_a_failed_commit_is_one_well_formed_answer(
    flavour: Flavour, serve: Serve, observer: Observer, handlers: Any, status: int
) -> None:
    async with serve(make_app(flavour, handlers)) as port:
        answer = await talk(port, "POST", "/orphan")

    assert parse(answer)[0] == status
    assert observer.children() == 0


@each_server
@one_of_each_colour
async def test_the_connection_lives_on_after_a_failed_commit(
    flavour: Flavour, serve: Serve, observer: Observer
) -> None:
    async with (
        serve(make_app(flavour, exception_handlers)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        answers = [
            (await client.post(path)).status_code
            for path in ("/items/one", "/orphan", "/items/two")
        ]

    assert answers == [200, 409, 200]
    assert observer.names() == ["one", "two"]


@each_server
@one_of_each_colour
async def test_a_stream_whose_commit_fails_is_seen_to_be_incomplete(
    flavour: Flavour, serve: Serve, observer: Observer
) -> None:
    app = make_app(flavour)

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "1"
            await flavour.do(flavour.db.current, add_orphan)
            yield "2"

        return StreamingResponse(body())

    async with serve(app) as port:
        answer = await talk(port, "POST", "/stream")
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            await asyncio.to_thread(httpx.post, f"http://127.0.0.1:{port}/stream")

    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert observer.children() == 0


@each_server
@one_of_each_colour
async def test_a_client_that_leaves_a_stream_takes_its_work_along(
    flavour: Flavour, serve: Serve, observer: Observer
) -> None:
    app = make_app(flavour)
    left = asyncio.Event()

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            await flavour.do(flavour.db.current, lambda s: add_item(s).id)
            yield "1"
            try:
                await asyncio.Event().wait()
            finally:
                left.set()

        return StreamingResponse(body())

    async with serve(app) as port:
        url = f"http://127.0.0.1:{port}/stream"
        async with httpx.AsyncClient() as client, client.stream("POST", url) as answer:
            assert await anext(answer.aiter_text()) == "1"
        await asyncio.wait_for(left.wait(), 10)
        await until_idle(flavour)

    assert observer.names() == []
    await check_pool_is_whole(flavour)


@each_server
@one_of_each_colour
async def test_the_server_stops_when_the_last_unit_has_ended(
    flavour: Flavour, serve: Serve, observer: Observer
) -> None:
    app = make_app(flavour)
    entered = asyncio.Event()

    @app.post("/slow")
    async def slow() -> None:
        await flavour.do(flavour.db.current, lambda s: add_item(s).id)
        entered.set()
        await eventually(lambda: stopping.is_set())

    stopping = asyncio.Event()
    async with serve(app) as port:
        request = asyncio.create_task(talk(port, "POST", "/slow"))
        await entered.wait()
        asyncio.get_running_loop().call_later(0.05, stopping.set)
    answer = await request

    assert parse(answer)[0] == 200
    assert observer.names() == ["one"]
    assert flavour.db.pool_status().idle == 0


@one_of_each_colour
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_server_that_is_told_to_stop_loses_nothing_that_was_acknowledged(
    flavour: Flavour, observer: Observer, name: str
) -> None:
    if name == "hypercorn" and sys.version_info >= (3, 12):
        pytest.skip("hypercorn 0.18 waits for its clients for ever on Python 3.12")
    acknowledged: list[str] = []

    async def client(port: int, number: int) -> None:
        """Write until the server is gone."""
        with suppress(OSError):
            for k in range(10**6):
                status, _ = parse(await talk(port, "POST", f"/items/{number}-{k}"))
                acknowledged.extend([f"{number}-{k}"] * (status == 200))

    async with process(name, flavour) as (server, port):
        clients = [asyncio.create_task(client(port, n)) for n in range(4)]
        hanging = asyncio.create_task(talk(port, "POST", "/hang/never"))
        await eventually(lambda: len(acknowledged) > 50, seconds=30)
        await eventually(lambda: observer.in_transaction() != [])
        server.terminate()
        async with asyncio.timeout(15):
            await server.wait()
            await asyncio.gather(*clients)
            assert not (await hanging).startswith(b"HTTP/1.1 200")

    stored = set(observer.names())
    assert set(acknowledged) <= stored
    assert "never" not in stored
    await eventually(lambda: observer.in_transaction() == [])
