"""Sync sessions: the gate before the pool, and the warning on the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anyio import to_thread
from fastapi.testclient import TestClient
from httpx2 import ASGITransport, AsyncClient

from support.manual import Page
from unitwork import BlockingSessionWarning


def test_stores_and_lists(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        assert client.post("/items/?name=lamp").json() == 1
        assert client.get("/items/").json() == ["lamp"]


def test_serves_thirty_requests_with_two_connections_and_two_threads(
    page: Page,
) -> None:
    main = page.run()

    statuses = asyncio.run(_thirty_at_once(main.app))
    main.db.dispose()

    assert statuses == {200}


async def _thirty_at_once(app: Any) -> set[int]:
    to_thread.current_default_thread_limiter().total_tokens = 2
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        replies = await asyncio.gather(*(client.get("/items/") for _ in range(30)))
    return {reply.status_code for reply in replies}


def test_warns_once_on_the_event_loop(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client, pytest.warns(BlockingSessionWarning) as warned:
        replies = [client.get("/blocking").json() for _ in range(2)]

    assert replies == [[], []]

    [warning] = warned
    shown = f"BlockingSessionWarning: {warning.message}"
    assert shown in " ".join(page.text.split())
