"""Several lives of one application, in one event loop after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import create_async_engine

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.holding import running
from support.lifespan import Life, block, live, serve
from support.models import add_item, names
from support.pool import eventually
from unitwork import AsyncDatabase

pytestmark = pytest.mark.anyio


async def test_it_lives_again(flavour: Flavour, observer: Observer) -> None:
    app = serve(flavour)
    for _ in range(3):
        life = Life(app)
        await life.start()
        assert (await call(app, "GET", "/")).status == 200
        await life.stop()

    assert flavour.db.pool_status()[1:] == (0, 0, 0)
    assert observer.in_transaction() == []


async def test_after_the_end_the_database_can_be_used(flavour: Flavour) -> None:
    app = serve(flavour)
    await live(app)

    assert (await call(app, "GET", "/")).status == 200


def test_each_test_client_has_an_event_loop_of_its_own(
    flavour: Flavour, observer: Observer
) -> None:
    app = serve(flavour)
    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/").status_code == 200
            assert client.get("/").status_code == 200

    assert flavour.db.pool_status()[1:] == (0, 0, 0)


def test_a_test_client_without_a_lifespan_has_one_for_each_request(
    flavour: Flavour, observer: Observer
) -> None:
    client = TestClient(serve(flavour))

    answers = [client.get("/").status_code for _ in range(4)]

    assert answers == [200] * 4
    assert flavour.db.pool_status().checked_out == 0


@only(*ASYNC, "asyncmy")
def test_a_database_serves_one_event_loop_after_the_other(
    flavour: Flavour, observer: Observer
) -> None:
    async def add(name: str) -> None:
        await flavour.work(lambda session: add_item(session, name).id)

    asyncio.run(add("one"))
    asyncio.run(add("two"))

    assert observer.names() == ["one", "two"]
    assert flavour.db.pool_status().checked_out == 0


def given_an_engine(flavour: Flavour) -> Flavour:
    engine = create_async_engine(flavour.url, pool_size=1, max_overflow=0)
    return Flavour(flavour.name, flavour.url, AsyncDatabase(engine))


def given_a_url(flavour: Flavour) -> Flavour:
    return flavour.another(pool_size=1, max_overflow=0)


@only(*ASYNC, "asyncmy")
@pytest.mark.parametrize("given", [given_an_engine, given_a_url])
def test_a_pool_that_was_used_up_in_one_event_loop_serves_the_next(
    flavour: Flavour, given: Callable[[Flavour], Flavour]
) -> None:
    narrow = given(flavour)

    async def crowd() -> None:
        await asyncio.gather(*(narrow.work(names) for _ in range(3)))

    for _ in range(3):
        asyncio.run(crowd())
        assert narrow.db.pool_status() == (1, 0, 1, 0)
    asyncio.run(narrow.dispose())


@only(*ASYNC)
@pytest.mark.parametrize("given", [given_an_engine, given_a_url])
def test_a_pool_that_was_used_up_in_one_test_client_serves_the_next(
    flavour: Flavour, given: Callable[[Flavour], Flavour]
) -> None:
    narrow = given(flavour)
    app = serve(narrow)

    @app.get("/crowd/")
    async def crowd() -> None:
        await asyncio.gather(*(narrow.work(names) for _ in range(3)))

    for _ in range(3):
        with TestClient(app) as client:
            assert client.get("/crowd/").status_code == 200
    asyncio.run(narrow.dispose())


@only(*ASYNC)
async def test_databases_that_share_an_engine_wait_in_one_queue(
    flavour: Flavour,
) -> None:
    one = given_an_engine(flavour)
    two = Flavour(flavour.name, flavour.url, AsyncDatabase(one.db.engine))
    async with block(one) as session:
        await one.do(session, names)
        async with running(one.work(names), Context()) as waits:
            await eventually(lambda: len(queue_of(one)._getters) == 1)
            async with running(two.work(names), Context()) as also_waits:
                await eventually(lambda: len(queue_of(two)._getters) == 2)
                await session.rollback()
                assert await asyncio.gather(waits, also_waits) == [[], []]
    await one.dispose()


def queue_of(flavour: Flavour) -> Any:
    return flavour.sync_engine.pool._pool._queue  # type: ignore[attr-defined]  # a test may
