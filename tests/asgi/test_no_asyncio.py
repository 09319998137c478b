"""Without asyncio (under trio) there is one sentence, and nothing half-working."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette

from support.asgi import Message, http_scope
from unitwork import AsyncDatabase, DBSessionMiddleware, UsageError


def run(scope: Message, sent: list[Message]) -> None:
    """Run the application by hand: no event loop of asyncio's is running."""
    app = Starlette()
    app.add_middleware(DBSessionMiddleware, db=AsyncDatabase("sqlite+aiosqlite://"))

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    app(scope, receive, send).send(None)


def test_the_application_does_not_start() -> None:
    sent: list[Message] = []
    with pytest.raises(UsageError, match="unitwork runs on asyncio only"):
        run({"type": "lifespan", "state": {}}, sent)

    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "unitwork runs on asyncio only" in message["message"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_request_says_so(kind: Any) -> None:
    with pytest.raises(UsageError, match="unitwork runs on asyncio only"):
        run(http_scope("GET", "/", type=kind, subprotocols=[]), [])
