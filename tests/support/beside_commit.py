"""What the body of a response does while COMMIT is under way, in another task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy import event
from sqlalchemy.util import await_only
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from support.asgi import Reply, call
from support.flavours import Flavour
from support.models import Item, add_item
from unitwork import DBSessionMiddleware


async def pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


class BesideCommit:
    """An endpoint that stores one item, inside *layers* of BaseHTTPMiddleware.

    Such a middleware lets the body run on while the start of the response is sent. The
    first COMMIT lasts until the first chunk of the body has done *work*, which is given
    the session and the item.
    """

    def __init__(
        self, flavour: Flavour, work: Callable[[Any, Item], Any], *, layers: int = 1
    ) -> None:
        self.flavour = flavour
        self._work = work
        self._item: Any = None
        self._commits = iter((self._first_commit,))
        kind = asyncio.Event if flavour.is_async else threading.Event
        self.committing: Any = kind()
        self.worked: Any = kind()
        event.listen(flavour.sync_engine, "commit", self._commit)
        self.app = FastAPI()
        self.app.post("/")(self._endpoint)
        for _ in range(layers):
            self.app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
        self.app.add_middleware(DBSessionMiddleware, db=flavour.db)

    async def call(self) -> Reply:
        return await asyncio.wait_for(call(self.app, "POST", "/"), 10)

    def _commit(self, connection: Any) -> None:
        for first in self._commits:
            first()

    def _first_commit(self) -> None:
        self.committing.set()
        waits = self.worked.wait()
        if self.flavour.is_async:
            await_only(waits)

    async def _endpoint(self) -> StreamingResponse:
        session = self.flavour.db.current
        self._item = await self.flavour.do(session, lambda s: add_item(s, "a"))
        body = self._async_body if self.flavour.is_async else self._body
        return StreamingResponse(body(session))

    async def _async_body(self, session: Any) -> AsyncIterator[bytes]:
        await self.committing.wait()
        try:
            result = self._work(session, self._item)
            if result is not None:
                await result
        finally:
            self.worked.set()
        yield b"1"
        yield b"2"

    def _body(self, session: Any) -> Iterator[bytes]:
        self.committing.wait()
        try:
            self._work(session, self._item)
        finally:
            self.worked.set()
        yield b"1"
        yield b"2"
