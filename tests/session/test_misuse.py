"""The notes on usual mistakes: none where the session can't have caused the error."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, only

pytestmark = pytest.mark.anyio


@only("sqlite3")
async def test_a_sync_session_is_not_blamed_for_a_missing_event_loop(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        asyncio.get_running_loop()  # as `asyncio.create_task()` does in a `def`

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert str(reply.error) == "no running event loop"
    assert getattr(reply.error, "__notes__", []) == []


@only("aiosqlite")
async def test_an_async_session_is_not_blamed_for_what_is_awaited(
    flavour: Flavour,
) -> None:
    def body(session: Session) -> None:
        raise TypeError("object int can't be used in 'await' expression")

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert getattr(reply.error, "__notes__", []) == []
