"""With release="statement" a unit holds no connection between its reads."""

from __future__ import annotations

from typing import Any

import pytest

from support.manual import Page


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


async def test_stores_what_the_call_has_returned_and_held_nothing(main: Any) -> None:
    main.held.clear()
    async with main.lifespan(main.app):
        async with main.db.transaction() as session:
            await main.summarize(1, session)
        async with main.db.transaction() as session:
            item = await session.get_one(main.Item, 1)
    await main.db.dispose()

    assert item.summary == "a summary of lamp"
    assert main.held == [0]


async def test_reads_without_a_transaction(main: Any) -> None:
    async with main.lifespan(main.app), main.db.transaction() as session:
        await session.get_one(main.Item, 1)
        in_transaction = session.in_transaction()
    await main.db.dispose()

    assert not in_transaction
