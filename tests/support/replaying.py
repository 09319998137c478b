"""Requests that are run again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from support.asgi import Message, Reply, call, http_scope
from support.conflicts import Conflict
from support.flavours import Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware, TransactionOptions, current_unit

THREE = TransactionOptions(attempts=3)
Endpoint = Callable[..., Any]


class Replayed:
    """A request that fails in its first attempt, after *see* has seen it."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.attempts: list[int] = []
        self.seen: list[Any] = []

    async def fail_once(self) -> None:
        """Write, and fail the first time."""
        self.attempts.append(current_unit().attempt)
        name = f"attempt {len(self.attempts)}"
        session = await self.flavour.db.session()
        await self.flavour.do(session, lambda s: add_item(s, name) and None)
        if len(self.attempts) == 1:
            raise Conflict

    def serve(self, endpoint: Endpoint, **options: Any) -> FastAPI:
        app = FastAPI()
        options = {"options": THREE, **options}
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db, **options)
        app.post("/")(endpoint)
        return app

    async def request(self, endpoint: Endpoint, **options: Any) -> Reply:
        reply = await call(self.serve(endpoint), "POST", "/", **options)
        assert (reply.status, reply.complete, reply.error) == (200, True, None)
        assert self.attempts == [1, 2]
        assert Observer(self.flavour.url).names() == ["attempt 2"]
        return reply


def chunks(*parts: bytes) -> Callable[[], Any]:
    """A `receive` that gives a body in *parts*, and then waits without end."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    messages[-1]["more_body"] = False

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


async def send_chunks(app: Any, *parts: bytes, **headers: str) -> Reply:
    """Make a POST whose body comes in *parts*."""
    reply = Reply()
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = http_scope("POST", "/", headers=raw)

    async def send(message: Message) -> None:
        reply.messages.append(message)

    try:
        await app(scope, chunks(*parts), send)
    except Exception as error:
        reply.error = error
    return reply
