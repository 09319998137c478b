"""A cursor of SQLite with more rows keeps its connection in an old snapshot."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from support.flavours import Flavour, Observer, only
from support.models import Item, add_item

pytestmark = pytest.mark.anyio

STORED = 5
NAMES = "SELECT name FROM item"


def read_one(result: Any) -> Any:
    """Leave rows in the cursor of *result*."""
    result.fetchone()
    return result


def by_core(session: Session) -> Any:
    streamed = text(NAMES).execution_options(stream_results=True)
    return read_one(session.connection().execute(streamed))


def in_pieces(session: Session) -> Any:
    options = {"yield_per": 1}
    return read_one(session.execute(select(Item), execution_options=options))


def by_the_driver(session: Session) -> Any:
    driver_connection: Any = session.connection().connection.driver_connection
    cursor = driver_connection.execute(NAMES)
    if inspect.isawaitable(cursor):
        cursor = await_only(cursor)
        await_only(cursor.fetchone())
        return cursor
    return read_one(cursor)


def count(session: Session) -> int | None:
    return session.scalar(select(func.count(Item.id)))


def store(session: Session) -> None:
    session.add_all(Item(name=f"{number}") for number in range(STORED))


@only("sqlite3", "aiosqlite")
@pytest.mark.parametrize("read", [by_core, in_pieces, by_the_driver])
async def test_unread_rows_do_not_hide_what_is_stored_later(
    flavour: Flavour, observer: Observer, read: Callable[[Session], Any]
) -> None:
    await flavour.work(store)
    kept = await flavour.work(read)
    other = flavour.another()

    await other.work(lambda session: add_item(session, "by another").id)
    assert await flavour.work(count, read_only=True) == STORED + 1
    await flavour.work(lambda session: add_item(session, "next").id)

    assert observer.names()[STORED:] == ["by another", "next"]
    await other.dispose()
    del kept


@only("sqlite3")
async def test_unread_rows_can_be_read_after_the_commit(flavour: Flavour) -> None:
    """As with drivers that fetch all rows at once; but not what others store."""

    def body(session: Session) -> Any:
        result = read_one(session.execute(text(NAMES)))
        add_item(session)
        return result

    await flavour.work(store)
    result = await flavour.work(body)
    await flavour.work(lambda session: add_item(session, "next").id)

    assert len(result.fetchall()) == STORED
