"""What a stream reads and writes, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks
from fastapi.testclient import TestClient

from support.asgi import call
from support.manual import Page
from unitwork import SessionEndedError


@pytest.fixture
def main(page: Page) -> Any:
    """The page, whose database has a lamp and a table."""
    main = page.run()
    main.seen.clear()
    return main


def test_commits_what_a_stream_writes(
    client: TestClient, stored: Callable[[], list[str]]
) -> None:
    assert client.post("/import").text == "chair\nsofa\n"
    assert stored() == ["lamp", "table", "chair", "sofa"]


def test_keeps_what_was_committed_before_a_broken_stream(
    client: TestClient, stored: Callable[[], list[str]]
) -> None:
    client.post("/broken")

    assert stored() == ["lamp", "table", "before the start"]


async def test_cuts_a_broken_stream_short(main: Any) -> None:
    async with main.lifespan(main.app):
        reply = await call(main.app, "POST", "/broken")
    await main.db.dispose()

    assert reply.status == 200
    assert not reply.complete


def test_refuses_a_cursor_that_streams_after_a_write(
    main: Any, client: TestClient, stored: Callable[[], list[str]]
) -> None:
    @main.app.post("/written")
    async def written() -> Any:
        main.db.current.add(main.Item(name="written"))
        await main.db.current.flush()
        return await main.everything(main.db.current)

    assert client.post("/written").status_code == 500
    assert stored() == ["lamp", "table"]


def test_refuses_the_session_in_a_background_task(
    main: Any, client: TestClient
) -> None:
    @main.app.post("/late")
    async def late(tasks: BackgroundTasks) -> None:
        session = main.db.current

        def work() -> None:
            with pytest.raises(SessionEndedError):
                session.add(main.Item(name="late"))
            main.seen.append("refused")

        tasks.add_task(work)

    assert client.post("/late").status_code == 200
    assert main.seen == ["refused"]
