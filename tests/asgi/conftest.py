"""Fixtures of the tests of streams, sockets and replays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi import WebSocket

from support.flavours import Flavour, Observer
from support.models import add_item
from support.replaying import Replayed
from support.sockets import Handle
from support.streams import Streams


@pytest.fixture
def replayed(flavour: Flavour) -> Replayed:
    return Replayed(flavour)


@pytest.fixture
def store(flavour: Flavour) -> Handle:
    """Store each message as an item, and say so."""

    async def store(websocket: WebSocket, message: str) -> None:
        await flavour.do(websocket.state.db, lambda s: add_item(s, message).id)
        await websocket.send_text("stored")

    return store


@pytest.fixture
async def streams(flavour: Flavour, observer: Observer) -> AsyncIterator[Streams]:
    streams = Streams(flavour, observer)
    await streams.prepare()
    yield streams
    # FastAPI caches endpoints: what they refer to would live into later tests.
    streams.kept = None
