"""One session that has several engines: a fixed order, and PARTIAL where it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import POSTGRESQL, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import (
    DatabaseSettings,
    Outcome,
    PartialCommitError,
    UnitOfWork,
    current_unit,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = [pytest.mark.anyio, only(*POSTGRESQL)]


class Base(DeclarativeBase):
    pass


class Order(Base):
    """In the second database: its COMMIT fails if there is another with the number."""

    __tablename__ = "ordered"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


UNIQUE = """
ALTER TABLE ordered ADD CONSTRAINT ordered_number UNIQUE (number)
DEFERRABLE INITIALLY DEFERRED
"""


@pytest.fixture
def settings() -> DatabaseSettings:
    return DatabaseSettings()


@pytest.fixture
async def split(flavour: Flavour, settings: DatabaseSettings) -> AsyncIterator[Flavour]:
    """Sessions in which each class has an engine of its own."""
    open_engine: Any = create_async_engine if flavour.is_async else create_engine
    items, orders = open_engine(flavour.url), open_engine(flavour.url)
    binds = {Item: items, Order: orders}
    kind: Any = AsyncSession if flavour.is_async else Session
    db = type(flavour.db)(
        items, session_class=kind, session_options={"binds": binds}, settings=settings
    )
    split = Flavour(flavour.name, flavour.url, db)
    await flavour.work(make_orders)
    yield split
    await flavour.work(lambda session: session.execute(text("DROP TABLE ordered")))
    for engine in (items, orders):
        await Flavour(flavour.name, flavour.url, type(flavour.db)(engine)).dispose()


def make_orders(session: Session) -> None:
    Base.metadata.create_all(session.connection())
    session.execute(text(UNIQUE))
    session.add(Order(number=1))


def add_order(number: int) -> Callable[[Session], None]:
    def body(session: Session) -> None:
        session.add(Order(number=number))
        session.flush()

    return body


def numbers(session: Session) -> list[int]:
    return list(session.scalars(select(Order.number).order_by(Order.number)))


async def test_all_are_committed(split: Flavour, observer: Observer) -> None:
    def body(session: Session) -> None:
        add_item(session)
        add_order(2)(session)

    reply = await call(serve_fastapi(split, body), "POST", "/")

    assert reply.status == 200
    assert (await split.work(names), await split.work(numbers)) == (["one"], [1, 2])


async def test_all_are_rolled_back(split: Flavour, observer: Observer) -> None:
    def body(session: Session) -> None:
        add_item(session)
        add_order(2)(session)
        raise LookupError

    await call(serve_fastapi(split, body), "POST", "/")

    assert (await split.work(names), await split.work(numbers)) == ([], [1])


@pytest.mark.parametrize("by_hand", [False, True])
async def test_the_second_commit_that_fails_leaves_a_part(
    split: Flavour, by_hand: bool
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)
        add_order(1)(session)
        if by_hand:
            session.commit()

    app = serve_fastapi(split, body, answer_errors=False)
    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, PartialCommitError)
    assert len(reply.error.committed) == len(reply.error.rolled_back) == 1
    assert units[0].outcome is Outcome.PARTIAL
    assert (await split.work(names), await split.work(numbers)) == (["one"], [1])


@pytest.mark.parametrize("settings", [DatabaseSettings(verify_commit=False)])
@pytest.mark.parametrize("fault", list(CommitFault))
async def test_the_second_commit_in_doubt_leaves_a_part_and_an_unknown_rest(
    split: Flavour, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        add_order(2)(session)
        add_item(session)

    app = serve_fastapi(split, body, answer_errors=False)
    with commit_faults(split.db, fault):  # of items
        reply = await call(app, "POST", "/")

    assert isinstance(reply.error, PartialCommitError)
    assert len(reply.error.committed) == len(reply.error.unknown) == 1
    assert reply.error.rolled_back == ()


async def test_the_first_commit_that_fails_leaves_nothing(split: Flavour) -> None:
    def body(session: Session) -> None:
        add_order(1)(session)
        add_item(session)

    app = serve_fastapi(split, body, answer_errors=False)
    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, IntegrityError)
    assert (await split.work(names), await split.work(numbers)) == ([], [1])
