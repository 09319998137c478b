"""Which sandbox a request belongs to, by whatever client."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from threading import Thread
from typing import Any

import httpx
import pytest
import websockets
from anyio import to_thread
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from httpx import ASGITransport

from support.flavours import Flavour, only
from support.items import create_item, items_app
from support.models import Item
from support.sandboxes import WAYS, count, entered, names
from support.servers import uvicorn_server
from support.sockets import run
from unitwork.testing import Sandbox, SandboxError, sandbox

FEW = only("sqlite3", "psycopg", "asyncpg", "pymysql")
SYNC = only("sqlite3", "psycopg", "pymysql")
SERVERS = only("psycopg", "asyncpg", "pymysql")
"""Where several sandboxes may have written at the same time."""
pytestmark = pytest.mark.anyio


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = items_app(flavour)

    @app.websocket("/")
    async def count_items(websocket: WebSocket) -> None:
        await websocket.accept()
        async for name in websocket.iter_text():
            await create_item(flavour, name)
            await websocket.send_text(str(await run(flavour, count)))

    return app


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    transport = ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **options)


# By the context


@FEW
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_in_the_same_task(
    flavour: Flavour, app: FastAPI, way: str
) -> None:
    async with entered(way, flavour.db), client_of(app) as client:
        await client.post("/items/one")
        assert (await client.get("/items")).json() == ["one"]

    assert await flavour.work(count) == 0


@FEW
@pytest.mark.parametrize("as_context", [True, False])
def test_the_test_client_of_starlette(
    flavour: Flavour, app: FastAPI, as_context: bool
) -> None:
    client = TestClient(app)
    with sandbox(flavour.db) as box, client if as_context else nullcontext():
        box.sync_session.add(Item(name="one"))
        box.sync_session.commit()
        client.post("/items/two")
        assert client.get("/items").json() == ["one", "two"]
        assert names(box.sync_session) == ["one", "two"]
    asyncio.run(flavour.dispose())


@FEW
def test_an_application_that_lasts_longer_than_its_tests(
    flavour: Flavour, app: FastAPI
) -> None:
    with TestClient(app) as client:
        for _ in range(3):
            with sandbox(flavour.db):
                client.post("/items/one")
                assert client.get("/items").json() == ["one"]
        assert client.get("/items").json() == []


@FEW
async def test_the_test_client_in_an_async_test(flavour: Flavour, app: FastAPI) -> None:
    with sandbox(flavour.db) as box, TestClient(app) as client:
        assert await flavour.do(box.session, count) == 0
        client.post("/items/one")

        assert await flavour.do(box.session, count) == 1


@SERVERS
async def test_sandboxes_side_by_side(flavour: Flavour, app: FastAPI) -> None:
    async def one_test(name: str) -> list[str]:
        async with entered("with", flavour.db), client_of(app) as client:
            await client.post(f"/items/{name}")
            await asyncio.sleep(0)
            found: list[str] = (await client.get("/items")).json()
            return found

    found = await asyncio.gather(*(one_test(f"item {n}") for n in range(8)))

    assert found == [[f"item {n}"] for n in range(8)]


# By the header


@SERVERS
async def test_a_server_finds_it_by_the_header(flavour: Flavour, app: FastAPI) -> None:
    async with uvicorn_server(app) as port:
        url = f"http://127.0.0.1:{port}"
        async with (
            entered("async with", flavour.db) as one,
            entered("async with", flavour.db) as two,
            httpx.AsyncClient(base_url=url, headers=one.headers) as first,
            httpx.AsyncClient(base_url=url, cookies=two.headers) as second,
        ):
            await first.post("/items/one")
            await second.post("/items/two")
            assert (await first.get("/items")).json() == ["one"]
            assert (await second.get("/items")).json() == ["two"]


@SERVERS
async def test_a_websocket_finds_it_at_the_handshake(
    flavour: Flavour, app: FastAPI
) -> None:
    async with uvicorn_server(app) as port, entered("async with", flavour.db) as box:
        url = f"ws://127.0.0.1:{port}/"
        async with websockets.connect(url, additional_headers=box.headers) as socket:
            await socket.send("one")
            assert await socket.recv() == "1"
        with box.allow():
            assert await flavour.work(count) == 1
    assert await flavour.work(count) == 0


@FEW
async def test_the_header_comes_before_the_context(
    flavour: Flavour, app: FastAPI
) -> None:
    async with entered("async with", flavour.db) as outer:
        headers = outer.headers
        async with client_of(app, headers=headers) as client:
            assert (await client.get("/items")).json() == []
            await client.post("/items/one")
        assert await flavour.work(count) == 1


@FEW
@pytest.mark.parametrize("value", ["1.0123", "nonsense", "é", ""])
async def test_a_header_that_is_forged_is_refused(
    flavour: Flavour, app: FastAPI, box: Sandbox, value: str
) -> None:
    headers = {"x-unitwork-sandbox": value.encode().decode("latin-1").encode("latin-1")}
    async with client_of(app, headers=headers) as client:
        assert (await client.get("/items")).status_code == 500


@FEW
async def test_a_sandbox_that_is_closed_is_refused(
    flavour: Flavour, app: FastAPI, box: Sandbox
) -> None:
    with sandbox(flavour.another(name="other").db) as closed:
        headers = closed.headers
    transport = ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, headers=headers) as client:
        with pytest.raises(SandboxError, match="closed: its test is over"):
            await client.get("http://test/items")


# Otherwise it is refused


@pytest.fixture
def refused(flavour: Flavour, box: Sandbox) -> Any:
    """Runs a unit in a thread that does not inherit the context of the test."""

    async def unit() -> Any:
        found: list[Any] = []

        def work() -> None:
            try:
                found.append(asyncio.run(flavour.work(count)))
            except BaseException as error:
                found.append(error)

        thread = Thread(target=work)
        thread.start()
        await to_thread.run_sync(thread.join)
        return found[0]

    return unit


@FEW
async def test_a_thread_of_its_own_is_refused(refused: Any) -> None:
    error = await refused()

    assert isinstance(error, SandboxError)
    assert "box.allow()" in str(error)


@SYNC
async def test_a_thread_of_its_own_may_be_allowed(
    flavour: Flavour, box: Sandbox
) -> None:
    found: list[int] = []

    def work() -> None:
        with flavour.db.transaction() as session:
            found.append(count(session))

    for allowed in (box.bind(work), lambda: allow(box, work)):
        thread = Thread(target=allowed)
        thread.start()
        await to_thread.run_sync(thread.join)

    assert found == [0, 0]


def allow(box: Sandbox, work: Any) -> None:
    with box.allow():
        work()


@SYNC
async def test_all_may_share_one(flavour: Flavour, box: Sandbox) -> None:
    found: list[int] = []

    def work() -> None:
        with flavour.db.transaction() as session:
            found.append(count(session))

    with box.shared():
        thread = Thread(target=work)
        thread.start()
        await to_thread.run_sync(thread.join)
        with pytest.raises(SandboxError, match="only one can be"), box.shared():
            pass

    assert found == [0]


@FEW
async def test_nothing_is_refused_when_no_sandbox_is_open(
    flavour: Flavour, app: FastAPI
) -> None:
    async with entered("with", flavour.db):
        pass
    async with client_of(app, headers={"x-unitwork-sandbox": "1.0"}) as client:
        assert (await client.get("/items")).json() == []
