"""A migration under load: plans grow stale, and no client notices."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import String, create_engine, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from support.asgi import call
from support.conflicts import write_from_outside
from support.endpoints import serve_fastapi
from support.flavours import POSTGRESQL, Flavour, only
from unitwork import Retry, RetryPolicy, TransactionOptions, current_unit

pytestmark = pytest.mark.anyio

CHANGES = [
    "ALTER TABLE plant ADD COLUMN height integer",
    "ALTER TABLE plant ALTER COLUMN name TYPE varchar(50)",
    "ALTER TABLE plant DROP COLUMN height",
    "ALTER TABLE plant ALTER COLUMN name TYPE text",
]
READS = 10
"""Of each client between two changes: psycopg prepares at the fifth."""


class Base(DeclarativeBase):
    pass


class Plant(Base):
    __tablename__ = "plant"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


@pytest.fixture
def table(flavour: Flavour) -> Any:
    engine = create_engine(make_url(flavour.url).set(drivername="postgresql+psycopg"))
    Base.metadata.create_all(engine)
    yield
    Base.metadata.drop_all(engine)
    engine.dispose()


def read_all(session: Session) -> int:
    """Read what has the table's columns by name, and what has all that there are."""
    session.execute(text("SELECT * FROM plant")).all()
    return len(session.query(Plant).all())


def plant(session: Session) -> int:
    session.add(Plant(name="oak"))
    session.flush()
    return read_all(session)


@only(*POSTGRESQL)
@pytest.mark.usefixtures("table")
async def test_the_schema_changes_under_load_without_an_error(flavour: Flavour) -> None:
    reported: list[Retry] = []
    options = TransactionOptions(attempts=3)
    retry = RetryPolicy(before_retry=reported.append)
    app = serve_fastapi(flavour, plant, options=options, retry=retry)

    async def work() -> list[int | None]:
        return [(await call(app, "POST", "/")).status for _ in range(READS)]

    for change in CHANGES:
        assert await asyncio.gather(*(work() for _ in range(5))) == [[200] * READS] * 5
        load = asyncio.gather(*(work() for _ in range(5)))
        await asyncio.to_thread(write_from_outside, flavour.url, change)
        assert await load == [[200] * READS] * 5

    assert reported  # the plans did grow stale


@only(*POSTGRESQL)
@pytest.mark.usefixtures("table")
async def test_a_stale_plan_is_run_again_once(flavour: Flavour) -> None:
    attempts: list[int] = []

    def body(session: Session) -> int:
        attempts.append(current_unit().attempt)
        return read_all(session)

    options = TransactionOptions(attempts=2)
    app = serve_fastapi(flavour, body, options=options)
    for _ in range(READS):
        await call(app, "GET", "/")
    await asyncio.to_thread(write_from_outside, flavour.url, CHANGES[0])
    attempts.clear()

    assert (await call(app, "GET", "/")).json == 0
    assert attempts == [1, 2]
    assert (await call(app, "GET", "/")).json == 0
    assert attempts == [1, 2, 1]
