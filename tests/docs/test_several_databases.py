"""What the page on several databases says is so."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import select

from support.manual import Page
from support.pages import statements
from unitwork._twophase.janitor import MIN_AGE


async def create(main: ModuleType) -> None:
    for db in main.orders, main.stock:
        async with db.engine.begin() as connection:
            await connection.run_sync(main.Base.metadata.create_all)
    async with main.stock.transaction() as session:
        session.add(main.Shelf(id=1))


async def count(db: Any, table: Any) -> int:
    async with db.transaction() as session:
        rows = (await session.scalars(select(table))).all()
    await db.dispose()
    return len(rows)


def test_commits_one_after_the_other(page: Page) -> None:
    main = page.run(up_to="When the second COMMIT fails")
    asyncio.run(create(main))

    with (
        TestClient(main.app) as client,
        statements(main.orders.engine) as first,
        statements(main.stock.engine) as second,
    ):
        assert client.post("/order?shelf=1").status_code == 201

    verbs = ["BEGIN", "INSERT", "COMMIT"]
    assert [sql.split()[0] for sql in first] == verbs
    assert [sql.split()[0] for sql in second] == verbs
    page.run()


def test_a_second_commit_that_fails_leaves_a_part(page: Page, capsys: Any) -> None:
    main = page.run(up_to="When the second COMMIT fails")
    asyncio.run(create(main))

    page.run()

    assert asyncio.run(count(main.orders, main.Order)) == 1
    assert asyncio.run(count(main.stock, main.Reservation)) == 0
    assert capsys.readouterr().out.strip() in page.text


def test_says_how_old_a_transaction_must_be_to_be_recovered(page: Page) -> None:
    main = page.run(up_to="When the second COMMIT fails")
    asyncio.run(create(main))
    page.run()

    assert page.text.count(f"{MIN_AGE:g} seconds") == 2
