"""`Database` and `AsyncDatabase`: connections, event loops and threads."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from sqlalchemy.orm import Session

from support.flavours import SYNC, Flavour, Observer, only
from support.models import add_item, names
from unitwork import PoolStatus

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite")


# Its connections


async def test_pool_status_counts_the_connections(flavour: Flavour) -> None:
    status = flavour.db.pool_status
    assert status() == PoolStatus(size=5, checked_out=0, idle=0, waiting=0)

    def body(session: Session) -> None:
        names(session)
        assert status() == (5, 1, 0, 0)

    await flavour.work(body)

    assert status() == (5, 0, 1, 0)


async def test_pool_status_counts_the_overflow(flavour: Flavour) -> None:
    larger = flavour.another(pool_size=2, max_overflow=3)
    endless = flavour.another(pool_size=2, max_overflow=-1)

    assert larger.db.pool_status().size == 5
    assert endless.db.pool_status().size is None


@one_of_each
async def test_a_disposed_database_can_be_used_again(
    flavour: Flavour, observer: Observer
) -> None:
    await flavour.work(add_item)
    await flavour.dispose()
    assert flavour.db.pool_status().idle == 0

    await flavour.work(partial(add_item, name="two"))

    assert observer.names() == ["one", "two"]


# Event loops and threads


async def in_its_own_loop(body: Callable[[], Any]) -> Any:
    """Run an async *body* in an event loop of its own, in another thread."""
    return await to_thread.run_sync(lambda: asyncio.run(body()))


async def test_works_in_one_event_loop_after_another(
    flavour: Flavour, observer: Observer
) -> None:
    async def in_a_loop(name: str) -> None:
        await flavour.work(partial(add_item, name=name))
        await flavour.dispose()

    for name in ("one", "two", "three"):
        await in_its_own_loop(partial(in_a_loop, name))

    assert observer.names() == ["one", "two", "three"]


@only(*SYNC)
async def test_works_in_two_threads_at_once(
    flavour: Flavour, observer: Observer
) -> None:
    together = threading.Barrier(2, timeout=10)
    numbers = range(5)

    def in_thread(who: str) -> None:
        for number in numbers:
            together.wait()
            with flavour.db.transaction() as session:
                add_item(session, f"{who}{number}")

    await asyncio.gather(*(to_thread.run_sync(in_thread, who) for who in "ab"))

    assert sorted(observer.names()) == [f"{who}{n}" for who in "ab" for n in numbers]


def test_two_event_loops_may_take_turns(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    with start_blocking_portal() as a, start_blocking_portal() as b:
        for name, loop in [("a1", a), ("b1", b), ("a2", a), ("b2", b)]:
            loop.call(flavour.work, partial(add_item, name=name))
        b.call(flavour.dispose)

    assert observer.names() == ["a1", "b1", "a2", "b2"]
    assert caplog.messages == []


# asyncpg itself complains that they were not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_connections_of_an_event_loop_that_is_gone_are_not_used(
    flavour: Flavour, observer: Observer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("one", "two", "three"):
        with start_blocking_portal() as loop:
            loop.call(flavour.work, partial(add_item, name=name))
    with start_blocking_portal() as loop:
        loop.call(flavour.work, names)
        loop.call(flavour.dispose)
    gc.collect()

    assert observer.names() == ["one", "two", "three"]
    assert caplog.messages == []
