"""FastAPI-SQLAlchemy and fastapi-async-sqlalchemy, before and after."""

from __future__ import annotations

import asyncio

import pytest

from support.manual import Page
from support.migrated import send_items

REFUSED = [201, 400]


def test_a_refused_item_is_no_longer_stored(page: Page) -> None:
    before = page.run(up_to="FastAPI-SQLAlchemy after")
    assert send_items(before.app) == (REFUSED, ["lamp", ""])
    with before.db():
        before.db.session.query(before.Item).delete()
        before.db.session.commit()
        before.db.session.get_bind().dispose()

    after = page.run(up_to="fastapi-async-sqlalchemy before")
    after.import_item("first")
    assert send_items(after.app) == (REFUSED, ["first", "lamp"])
    page.run()


# Its session is SQLModel's where that is installed, which has a view on execute().
@pytest.mark.filterwarnings("ignore:(?s).*You probably want to use:DeprecationWarning")
def test_a_refused_item_is_no_longer_stored_async(page: Page) -> None:
    before = page.run(up_to="fastapi-async-sqlalchemy after")
    before.db.dispose()
    statuses, stored = send_items(before.async_app)
    assert (statuses, stored) == (REFUSED, ["lamp", ""])

    after = page.run()
    statuses, stored = send_items(after.async_app)
    assert (statuses, stored) == (REFUSED, ["lamp", "", "lamp"])


def test_the_names_of_the_table_exist(page: Page) -> None:
    main = page.run()

    async def transaction() -> bool:
        async with main.async_db.transaction() as session:
            return session is main.async_db.current

    assert asyncio.run(transaction())
