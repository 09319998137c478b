"""What a request holds while it waits for something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from unitwork import current_unit


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


async def test_stores_what_the_call_has_returned(main: Any) -> None:
    async with main.lifespan(main.app):
        async with main.db.transaction():
            unit = current_unit()
            session = main.db.current
            await main.summarize(1, session, unit)
        async with main.db.transaction() as session:
            item = await session.get_one(main.Item, 1)
    await main.db.dispose()

    assert item.summary == "a summary of lamp"


def test_the_database_is_idle_afterwards(
    main: Any, client: TestClient, stored: Callable[[], list[str]]
) -> None:
    client.get("/events")

    assert main.db.pool_status().checked_out == 0
    assert stored() == ["lamp"]
