"""The guard of the pool, on engines that users have made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from support.flavours import POSTGRESQL, Flavour, Observer, everywhere, only
from support.guarding import (
    driver_connection_of,
    write_behind_the_pool,
)
from support.models import Item, add_item, names
from support.pool import use_every_connection
from unitwork import UnexpectedRollbackError

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(flavour: Flavour) -> AsyncIterator[Any]:
    open_engine = create_async_engine if flavour.is_async else create_engine
    engine: Any = open_engine(flavour.url, pool_size=1, max_overflow=0)
    yield engine
    await over(flavour, engine).dispose()


def over(flavour: Flavour, source: Any, **options: Any) -> Flavour:
    return Flavour(flavour.name, flavour.url, type(flavour.db)(source, **options))


async def make_and_use(flavour: Flavour, engine: Any) -> Flavour:
    """Let *engine* have a connection in its pool before anybody guards it."""
    if flavour.is_async:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    else:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    return over(flavour, engine)


async def test_takes_over_connections_that_were_there_before(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    taken = await make_and_use(flavour, engine)
    assert taken.db.pool_status().idle == 1

    await taken.work(add_item)

    assert observer.names() == ["one"]


@only(*POSTGRESQL)
async def test_replaces_connections_that_were_there_before_and_are_dropped(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    taken = await make_and_use(flavour, engine)
    observer.terminate_all()

    await taken.work(add_item)

    assert observer.names() == ["one"]


@everywhere
async def test_looks_into_connections_that_were_there_before(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    taken = await make_and_use(flavour, engine)
    put = await driver_connection_of(taken.db.engine)
    await write_behind_the_pool(put)

    await taken.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


@only(*POSTGRESQL)
async def test_a_swallowed_error_is_no_success_on_such_a_connection_either(
    flavour: Flavour, engine: Any
) -> None:
    taken = await make_and_use(flavour, engine)

    def body(session: Session) -> None:
        add_item(session)
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))

    with pytest.raises(UnexpectedRollbackError):
        await taken.work(body)


async def test_every_engine_is_guarded_that_a_callable_gives(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    answers = [flavour.db.engine]
    late = over(flavour, lambda: answers[-1])
    await late.work(names)
    answers.append(engine)
    put = await driver_connection_of(late.db.engine)
    await write_behind_the_pool(put)

    await late.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


async def test_the_engine_is_guarded_that_a_sessionmaker_is_given_later(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    make: Any = async_sessionmaker if flavour.is_async else sessionmaker
    maker = make(flavour.db.engine)
    made = over(flavour, maker)
    await made.work(names)
    maker.configure(bind=engine)
    put = await driver_connection_of(made.db.engine)
    await write_behind_the_pool(put)

    await made.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


async def test_all_engines_of_a_sessionmaker_are_guarded(
    flavour: Flavour, engine: Any, observer: Observer
) -> None:
    make: Any = async_sessionmaker if flavour.is_async else sessionmaker
    binds = {Item: engine}
    made = over(flavour, make(flavour.db.engine, binds=binds))
    put = await driver_connection_of(engine)
    await write_behind_the_pool(put)

    await made.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


@pytest.mark.parametrize("way", ["get_bind", "binds"])
async def test_engines_that_only_a_session_knows_are_guarded(
    flavour: Flavour, engine: Any, observer: Observer, way: str
) -> None:
    sync_engine = getattr(engine, "sync_engine", engine)

    class Routing(Session):
        def get_bind(self, *args: Any, **options: Any) -> Any:
            return sync_engine

    routing = "sync_session_class" if flavour.is_async else "class_"
    options = {"get_bind": {routing: Routing}, "binds": {"binds": {Item: engine}}}[way]
    session_class = options.pop("class_", None)
    routed = over(
        flavour, flavour.db.engine, session_class=session_class, session_options=options
    )
    put = await driver_connection_of(engine)
    await write_behind_the_pool(put)

    await routed.work(partial(add_item, name="next"))

    assert observer.names() == ["next"]


@only("sqlite3", "aiosqlite")
async def test_what_cost_one_unit_its_work_is_forgotten_at_checkin(
    flavour: Flavour,
) -> None:
    """The bare engine knows no units, and gets the same connection."""
    single = flavour.another(pool_size=1, max_overflow=0)

    def lose(session: Session) -> None:
        add_item(session)
        session.execute(text("INSERT OR ROLLBACK INTO item (name) VALUES ('one')"))

    with pytest.raises(IntegrityError):
        await single.work(lose)

    assert await use_every_connection(single) == 1
    await single.dispose()
