"""P7: a request that is cancelled, at whatever moment, leaves a clean pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from support.asgi import Message, Reply, call
from support.cancelling import KINDS, Kind, at_each_suspension
from support.flavours import Flavour, Observer
from support.models import add_item, names
from support.pool import check_pool_is_whole, drop_idle_connections
from unitwork import DBSessionMiddleware, current_unit

pytestmark = pytest.mark.anyio

PATHS = ["/read", "/write", "/hooks", "/stream"]


class Requests:
    """An application, and requests to it that a test cancels on their way."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.name = ""
        self.seen: list[Message] = []
        self.app = FastAPI()
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)
        self.app.post("/read")(flavour.endpoint(names))
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
        """The rows of which the client has been told."""
        started = {self.name for m in self.seen if m.get("status") == 200}
        ended = {f"{self.name} streamed" for m in self.seen if m.get("body") == b"b"}
        return started | ended

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", PATHS)
async def test_cancelled_at_any_suspension_it_leaves_nothing_behind(
    requests: Requests, observer: Observer, path: str, kind: Kind
) -> None:
    async for k in at_each_suspension(requests.maker(path), kind):
        await check_pool_is_whole(requests.flavour)
        stored = observer.names()
        reply = await requests.request("/write", f"next {k}")

        assert reply.status == 200
        assert observer.names() == [*stored, f"next {k}"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", PATHS[1:])
async def test_cancelled_at_any_suspension_it_has_told_no_lie(
    requests: Requests, observer: Observer, path: str, kind: Kind
) -> None:
    async for _ in at_each_suspension(requests.maker(path), kind):
        assert requests.acknowledged <= set(observer.names())


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_while_it_connects_it_leaves_nothing_behind(
    requests: Requests, kind: Kind
) -> None:
    async for _ in at_each_suspension(requests.maker("/write"), kind):
        await check_pool_is_whole(requests.flavour)
        await drop_idle_connections(requests.flavour)
