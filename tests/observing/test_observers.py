"""Observers: which events they get, for how long, and what one that fails does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

import pytest
from fastapi import FastAPI
from sqlalchemy import exc, text

from support.asgi import call
from support.flavours import EVERY, FEW, Flavour, only
from support.models import add_item
from support.recording import Recorder, recording
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    PoolTimeoutError,
    UsageError,
)
from unitwork.events import (
    ConnectionCheckedIn,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    PoolEvent,
    UnitBegun,
    UnitEnded,
    UnitEvent,
    WaitEnded,
    WaitStarted,
)

pytestmark = pytest.mark.anyio

POOL_TIMEOUTS = (PoolTimeoutError, exc.TimeoutError)


class Failing:
    def on_event(self, event: Event) -> None:
        raise LookupError(type(event).__name__)


@only(*EVERY)
async def test_an_observer_that_fails_is_logged_once_and_harms_nothing(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    stop = flavour.db.observe(Failing())

    await flavour.work(lambda session: add_item(session).id)

    stop()
    assert await flavour.work(lambda session: session.scalar(text("SELECT 1"))) == 1
    [logged] = [each for each in caplog.records if "Failing" in each.getMessage()]
    assert logged.levelno == logging.ERROR


@FEW
async def test_one_that_is_removed_gets_no_more_not_even_of_an_open_unit(
    flavour: Flavour,
) -> None:
    recorder = Recorder()
    stop = flavour.db.observe(recorder)

    async with flavour.block():
        stop()
        stop()

    assert recorder.story == ["UnitBegun"]


@FEW
async def test_a_unit_that_is_open_already_is_not_observed(flavour: Flavour) -> None:
    async with flavour.block() as session:
        stop = flavour.db.observe(recorder := Recorder())
        await flavour.do(session, lambda session: add_item(session).id)

    stop()
    assert recorder.story == []


@FEW
async def test_only_what_is_wanted_is_delivered(flavour: Flavour) -> None:
    with (
        recording(flavour.db, only=[UnitEnded]) as ends,
        recording(flavour.db, only=[UnitEvent]) as of_units,
    ):
        await flavour.work(lambda session: add_item(session).id)

    assert ends.story == ["UnitEnded"]
    assert len(of_units.story) > 5
    assert of_units.pool_story == ends.pool_story == []


@only("aiosqlite")
async def test_an_observer_of_two_databases_gets_each_event_of_a_unit_once(
    flavour: Flavour,
) -> None:
    recorder = Recorder()
    second = AsyncDatabase(flavour.url, name="second", observers=[recorder])
    stop = flavour.db.observe(recorder)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second])

    @app.get("/")
    async def read() -> None:
        await flavour.db.current.execute(text("SELECT 1"))
        await second.current.execute(text("SELECT 1"))

    await call(app, "GET", "/")

    stop()
    await second.dispose()
    assert recorder.one(UnitBegun).unit.databases == ("default", "second")
    assert recorder.story.count("ConnectionTaken") == 2
    assert recorder.one(UnitEnded).use.connections == 2


@only("sqlite3", "psycopg", "asyncpg")
async def test_the_events_of_a_pool_begin_with_its_first_connection(
    flavour: Flavour,
) -> None:
    other = flavour.another(observers=[recorder := Recorder()])

    await other.work(lambda session: session.scalar(text("SELECT 1")))
    await other.dispose()

    opened = recorder.one(ConnectionOpened)
    assert opened.duration is not None
    assert opened.duration > 0
    assert len(recorder.of(ConnectionClosed)) == 1
    assert recorder.one(ConnectionCheckedIn).used > 0
    waits = len(recorder.of(WaitStarted))
    assert waits == len(recorder.of(WaitEnded)) >= 1


@FEW
async def test_a_user_of_the_engine_is_an_event_of_the_pool_and_of_no_unit(
    flavour: Flavour, recorder: Recorder
) -> None:
    await flavour.create_tables()

    assert recorder.story == []
    assert {event.unit for event in recorder.of(PoolEvent)} == {None}
    assert recorder.pool_story[-1] == "ConnectionCheckedIn"


@only("psycopg", "asyncpg")
async def test_the_wait_for_a_connection_that_none_becomes_free_has_the_error(
    flavour: Flavour,
) -> None:
    other = flavour.another(
        observers=[recorder := Recorder()],
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.01,
    )

    async with other.block() as session:
        await other.do(session, lambda session: session.scalar(text("SELECT 1")))
        work = other.work(lambda session: session.scalar(text("SELECT 1")))
        elsewhere = asyncio.get_running_loop().create_task(work, context=Context())
        with pytest.raises(POOL_TIMEOUTS):
            await elsewhere

    await other.dispose()
    failed = [each for each in recorder.of(WaitEnded) if each.error is not None]
    assert [type(each.error) in POOL_TIMEOUTS for each in failed] == [True]
    assert failed[0].unit is not None
    assert failed[0].waited >= 0.01


@FEW
async def test_what_is_no_observer_is_refused(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match="on_event"):
        flavour.db.observe(print)


@only("aiosqlite")
async def test_an_observer_gets_of_each_database_what_it_has_requested_there(
    flavour: Flavour,
) -> None:
    recorder = Recorder()
    second = AsyncDatabase(flavour.url, name="second", observers=[recorder])
    stop = flavour.db.observe(recorder, only=[UnitEnded])
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=[flavour.db, second])

    @app.get("/")
    async def read() -> None:
        await second.current.execute(text("SELECT 1"))
        stop()

    await call(app, "GET", "/")

    await second.dispose()
    assert recorder.story.count("StatementExecuted") == 1
    assert recorder.story.count("UnitEnded") == 1


@only("aiosqlite")
async def test_an_observer_of_one_database_twice_gets_each_event_once(
    flavour: Flavour,
) -> None:
    recorder = Recorder()
    stop = flavour.db.observe(recorder, only=[UnitBegun])
    stop_all = flavour.db.observe(recorder)

    await flavour.work(lambda session: session.scalar(text("SELECT 1")))

    stop()
    stop_all()
    assert recorder.story.count("UnitBegun") == 1
    assert recorder.story.count("UnitEnded") == 1


@only("aiosqlite")
async def test_an_observer_that_begins_amid_a_wait_gets_no_end_without_a_start(
    flavour: Flavour,
) -> None:
    late = Recorder()
    other = flavour.another(observers=[Inviting(lambda: other.db.observe(late))])

    async with other.db.engine.connect():
        pass

    await other.dispose()
    assert late.pool_story == [
        "ConnectionOpened",
        "ConnectionCheckedIn",
        "ConnectionClosed",
    ]


class Inviting:
    """Adds another observer while a connection is waited for."""

    def __init__(self, invite: Callable[[], object]) -> None:
        self._invite = invite

    def on_event(self, event: Event) -> None:
        if isinstance(event, WaitStarted):
            self._invite()
