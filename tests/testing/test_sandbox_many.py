"""A thousand tests in one process over one application: none sees another's work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets
from fastapi import FastAPI, WebSocket
from httpx import ASGITransport

from support.flavours import Flavour, only
from support.items import create_item, items_app
from support.sandboxes import entered, names
from support.servers import uvicorn_server
from support.sockets import run
from unitwork.testing import Sandbox

TESTS = {"asyncpg": 1000, "psycopg": 200}
AT_A_TIME = 16
pytestmark = pytest.mark.anyio


def serving(flavour: Flavour) -> FastAPI:
    app = items_app(flavour)

    @app.websocket("/")
    async def list_items(websocket: WebSocket) -> None:
        await websocket.accept()
        async for name in websocket.iter_text():
            await create_item(flavour, name)
            await websocket.send_json(await run(flavour, names))

    return app


class Clients:
    """The ways in which a test may reach the application."""

    def __init__(self, app: FastAPI, port: int) -> None:
        self.app = app
        self.address = f"127.0.0.1:{port}"

    async def by_context(self, box: Sandbox, name: str) -> Any:
        transport = ASGITransport(self.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://t", verify=False
        ) as one:
            return await self._through(one, name)

    async def by_header(self, box: Sandbox, name: str) -> Any:
        url = f"http://{self.address}"
        async with httpx.AsyncClient(
            base_url=url, headers=box.headers, verify=False
        ) as client:
            return await self._through(client, name)

    async def by_socket(self, box: Sandbox, name: str) -> Any:
        url, headers = f"ws://{self.address}/", box.headers
        async with websockets.connect(url, additional_headers=headers) as socket:
            await socket.send(name)
            return json.loads(await socket.recv())

    async def _through(self, client: httpx.AsyncClient, name: str) -> Any:
        assert (await client.post(f"/items/{name}")).status_code == 200
        return (await client.get("/items")).json()


@asynccontextmanager
async def clients_of(flavour: Flavour) -> AsyncIterator[Clients]:
    app = serving(flavour)
    async with uvicorn_server(app) as port:
        yield Clients(app, port)


@only("psycopg", "asyncpg")
async def test_no_test_sees_the_work_of_another(flavour: Flavour) -> None:
    at_a_time = asyncio.Semaphore(AT_A_TIME)
    async with clients_of(flavour) as clients:
        ways = [clients.by_context, clients.by_header, clients.by_socket]

        async def one_test(number: int) -> None:
            way, name = ways[number % 3], f"item{number}"
            entering = "with" if number % 2 else "async with"
            async with at_a_time, entered(entering, flavour.db) as box:
                assert await way(box, name) == [name]
                own = await flavour.do(box.session, names)
                assert own == [name]

        async with asyncio.TaskGroup() as group:
            for number in range(TESTS[flavour.name]):
                group.create_task(one_test(number))
