"""P4: with `StaticPool`, other users of the connection end the unit's transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import HTTPException
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from support.driver import INSERT
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from support.swallowing import post_noting_unit
from unitwork import (
    CommitUnknownError,
    Outcome,
    UnexpectedRollbackError,
    current_unit,
)

pytestmark = pytest.mark.anyio

ONE = text("SELECT 1")
sqlite = only("sqlite3", "aiosqlite")


@pytest.fixture
async def static(flavour: Flavour) -> AsyncIterator[Flavour]:
    arguments = {"check_same_thread": False}
    static = flavour.another(poolclass=StaticPool, connect_args=arguments)
    yield static
    await static.dispose()


def connect(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(ONE)


def raise_in_begin(engine: Engine) -> None:
    with pytest.raises(LookupError), engine.begin():
        raise LookupError


def use_driver(engine: Engine) -> None:
    engine.raw_connection().close()


def begin(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(ONE)


def commit_by_driver(engine: Engine) -> None:
    raw = engine.raw_connection()
    raw.commit()
    raw.close()


each_rollback = pytest.mark.parametrize("use", [connect, raise_in_begin, use_driver])
each_commit = pytest.mark.parametrize("use", [begin, commit_by_driver])
Use = Callable[[Engine], None]


@sqlite
@each_rollback
async def test_one_that_rolls_back_is_no_success(
    static: Flavour, observer: Observer, use: Use
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        use(static.sync_engine)

    reply, unit = await post_noting_unit(static, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert unit.outcome is Outcome.ROLLED_BACK
    assert observer.names() == []


@sqlite
@each_rollback
async def test_nothing_is_written_after_it(
    static: Flavour, observer: Observer, use: Use
) -> None:
    def body(session: Session) -> None:
        names(session)
        use(static.sync_engine)
        add_item(session)

    reply, _ = await post_noting_unit(static, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@sqlite
@each_rollback
async def test_a_unit_that_has_only_read_has_lost_nothing(
    static: Flavour, use: Use
) -> None:
    def body(session: Session) -> None:
        names(session)
        use(static.sync_engine)

    reply, _ = await post_noting_unit(static, body)

    assert (reply.status, reply.error) == (200, None)


@sqlite
@each_commit
async def test_one_that_commits_is_no_success(
    static: Flavour, observer: Observer, use: Use
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        use(static.sync_engine)

    reply, unit = await post_noting_unit(static, body)

    assert isinstance(reply.error, CommitUnknownError)
    assert unit.outcome is Outcome.UNKNOWN
    assert observer.names() == ["one"]


@sqlite
@each_commit
async def test_nor_is_it_a_rollback(static: Flavour, use: Use) -> None:
    def body(session: Session) -> None:
        add_item(session)
        use(static.sync_engine)
        raise HTTPException(400)

    reply, unit = await post_noting_unit(static, body)

    assert (reply.status, unit.outcome) == (400, Outcome.UNKNOWN)


@only("sqlite3")  # its hooks may use the engine in their thread
async def test_a_hook_has_the_connection_to_itself(
    static: Flavour, observer: Observer
) -> None:
    def write() -> None:
        with static.sync_engine.begin() as connection:
            connection.execute(text(INSERT))

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(write)

    reply, unit = await post_noting_unit(static, body)

    assert (reply.status, unit.outcome) == (200, Outcome.COMMITTED)
    assert observer.names() == ["one", "by the driver"]
