"""Hooks that hang: they obey the deadline and cancellation, and keep nothing open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.orm import Session

from support.asgi import call
from support.clocks import Clock
from support.databases import check_nothing_is_left
from support.endpoints import serve_fastapi
from support.flavours import Flavour, Observer, only
from support.holding import running
from support.models import add_item
from unitwork import (
    Database,
    DatabaseSettings,
    Outcome,
    TransactionOptions,
    UnitOfWork,
    UsageError,
    current_unit,
)
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

each = only("sqlite3", "psycopg", "aiosqlite", "asyncpg")
DEADLINE = TransactionOptions(deadline=60.0)


class Hanging:
    """Hooks that hang until the end of the test, and the moment at which they begin."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.begun = threading.Event()
        self.units: list[UnitOfWork] = []

    async def in_task(self) -> None:
        self.begun.set()
        await asyncio.Event().wait()

    def in_thread(self) -> None:
        self.begun.set()
        self.released.wait(30)

    async def stubbornly(self) -> None:
        self.begun.set()
        while not self.released.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.begun.wait, 30)


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.released.set()
    await asyncio.sleep(0.02)


@pytest.fixture(params=["in_task", "in_thread", "stubbornly"])
def hang(request: pytest.FixtureRequest, hanging: Hanging) -> Callable[[], Any]:
    hook: Callable[[], Any] = getattr(hanging, request.param)
    return hook


def register(hanging: Hanging, kind: str, *hooks: Callable[[], Any]) -> Any:
    """A body that writes and registers *hooks*."""

    def body(session: Session) -> str:
        unit = current_unit()
        hanging.units.append(unit)
        add_item(session)
        for hook in hooks:
            getattr(unit, kind)(hook)
        return "stored"

    return body


# The deadline


@each
async def test_after_commit_it_ends_with_the_deadline_and_the_commit_stands(
    flavour: Flavour,
    observer: Observer,
    hanging: Hanging,
    hang: Callable[[], Any],
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = register(hanging, "on_commit", hang, lambda: None)
    app = serve_fastapi(flavour, body, options=DEADLINE)

    async with running(call(app, "POST", "/")) as request:
        await hanging.has_begun()
        clock.put_forward(60.0)
        reply = await request

    assert (reply.status, reply.json, observer.names()) == (200, "stored", ["one"])
    assert hanging.units[0].outcome is Outcome.COMMITTED
    assert f"{hang.__qualname__} failed" in caplog.text
    assert "was not called: there was no time left" in caplog.text


@each
async def test_before_commit_it_ends_with_the_deadline_in_a_rollback(
    flavour: Flavour,
    observer: Observer,
    hanging: Hanging,
    hang: Callable[[], Any],
    clock: Clock,
) -> None:
    body = register(hanging, "before_commit", hang)
    app = serve_fastapi(flavour, body, options=DEADLINE, handlers=exception_handlers)

    async with running(call(app, "POST", "/")) as request:
        await hanging.has_begun()
        clock.put_forward(60.0)
        reply = await request

    assert (reply.status, observer.names()) == (504, [])
    await check_nothing_is_left(flavour)


@each
async def test_after_the_rollback_of_a_deadline_it_ends_as_well(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    ours = flavour.another(settings=DatabaseSettings(end_timeout=0.2))

    def body(session: Session) -> None:
        current_unit().on_rollback(hanging.in_task)
        current_unit().before_commit(hanging.in_task)
        add_item(session)

    options = TransactionOptions(deadline=0.1)
    app = serve_fastapi(ours, body, options=options, handlers=exception_handlers)

    async with asyncio.timeout(20):
        reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (504, [])
    await ours.dispose()


# Without one


@each
async def test_before_commit_it_keeps_a_transaction_open_for_end_timeout_at_most(
    flavour: Flavour, observer: Observer, hanging: Hanging, hang: Callable[[], Any]
) -> None:
    ours = flavour.another(settings=DatabaseSettings(end_timeout=0.2))
    body = register(hanging, "before_commit", hang)

    async with asyncio.timeout(20):
        reply = await call(serve_fastapi(ours, body), "POST", "/")

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, UsageError)
    assert f"{hang.__qualname__} has kept the transaction open" in str(reply.error)
    await check_nothing_is_left(ours)
    await ours.dispose()


@only("sqlite3", "psycopg")
def test_in_a_sync_block_it_loses_the_connection_and_fails_once_it_returns(
    flavour: Flavour, observer: Observer
) -> None:
    db = Database(flavour.url, settings=DatabaseSettings(end_timeout=0.1))

    def block() -> None:
        with db.transaction() as session:
            add_item(session)
            current_unit().before_commit(threading.Event().wait, 0.3)

    with pytest.raises(UsageError, match="end_timeout"):
        block()

    assert observer.names() == []
    db.dispose()


# Cancellation


@each
async def test_after_commit_it_can_be_cancelled(
    flavour: Flavour,
    observer: Observer,
    hanging: Hanging,
    hang: Callable[[], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = serve_fastapi(flavour, register(hanging, "on_commit", hang, lambda: None))
    request = asyncio.create_task(call(app, "POST", "/"))
    await hanging.has_begun()

    assert flavour.db.pool_status().checked_out == 0
    request.cancel()
    await asyncio.wait((request,), timeout=20)

    assert (request.cancelled(), observer.names()) == (True, ["one"])
    assert f"{hang.__qualname__} was interrupted by a cancellation" in caplog.text
    assert "was not called: there was no time left" in caplog.text


@only("sqlite3", "asyncpg")
async def test_after_commit_a_second_cancellation_leaves_it_its_time(
    flavour: Flavour, hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    app = serve_fastapi(flavour, register(hanging, "on_commit", hanging.in_thread))
    request = asyncio.create_task(call(app, "POST", "/"))
    await hanging.has_begun()

    for _ in range(2):
        request.cancel()
        await asyncio.sleep(0)
    hanging.released.set()
    await asyncio.wait((request,), timeout=20)

    assert (request.cancelled(), caplog.text) == (True, "")


@each
async def test_before_commit_it_can_be_cancelled(
    flavour: Flavour, observer: Observer, hanging: Hanging, hang: Callable[[], Any]
) -> None:
    app = serve_fastapi(flavour, register(hanging, "before_commit", hang))
    request = asyncio.create_task(call(app, "POST", "/"))
    await hanging.has_begun()

    request.cancel()
    await asyncio.wait((request,), timeout=20)

    assert (request.cancelled(), observer.names()) == (True, [])
    await check_nothing_is_left(flavour)


@only("asyncpg")
async def test_a_timeout_around_a_block_ends_it(
    flavour: Flavour,
    observer: Observer,
    hanging: Hanging,
    hang: Callable[[], Any],
    clock: Clock,
) -> None:
    async def block() -> None:
        async with asyncio.timeout(60), flavour.db.transaction() as session:
            current_unit().on_commit(hang)
            await session.run_sync(add_item)

    async with running(block()) as work:
        await hanging.has_begun()
        clock.put_forward(60.0)
        with pytest.raises(TimeoutError):
            await work

    assert observer.names() == ["one"]


# What else they may raise or start


def raise_generator_exit() -> None:
    raise GeneratorExit


async def raise_generator_exit_in_task() -> None:
    raise GeneratorExit


def raise_stop_iteration() -> None:
    next(iter(()))


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@each
@pytest.mark.parametrize(
    "hook",
    [
        raise_generator_exit,
        raise_generator_exit_in_task,
        raise_stop_iteration,
        cancel_itself,
    ],
)
async def test_whatever_one_raises_after_commit_the_others_are_called(
    flavour: Flavour,
    observer: Observer,
    hanging: Hanging,
    done: list[str],
    hook: Callable[[], Any],
) -> None:
    def others() -> None:
        done.append("others")

    app = serve_fastapi(flavour, register(hanging, "on_commit", hook, others))

    reply = await call(app, "POST", "/")

    assert (reply.status, done, observer.names()) == (200, ["others"], ["one"])


@each
@pytest.mark.parametrize("hook", [raise_generator_exit, raise_generator_exit_in_task])
async def test_what_it_raises_before_commit_rolls_back(
    flavour: Flavour, observer: Observer, hanging: Hanging, hook: Callable[[], Any]
) -> None:
    app = serve_fastapi(flavour, register(hanging, "before_commit", hook))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (500, [])
    assert isinstance(reply.error, RuntimeError)


@only("sqlite3", "psycopg")
@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit])
def test_in_a_sync_block_what_it_raises_before_commit_rolls_back(
    flavour: Flavour, observer: Observer, error: type[BaseException]
) -> None:
    def hook() -> None:
        raise error

    def block() -> None:
        with flavour.db.transaction() as session:
            add_item(session)
            current_unit().before_commit(hook)

    with pytest.raises((error, RuntimeError)):
        block()

    assert observer.names() == []


@only("asyncpg")
async def test_a_task_that_one_starts_may_outlive_the_unit(
    flavour: Flavour, observer: Observer, hanging: Hanging
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        async with flavour.db.transaction() as session:
            await session.run_sync(add_item, "later")

    async def start() -> None:
        tasks.append(asyncio.create_task(later()))

    reply = await call(
        serve_fastapi(flavour, register(hanging, "on_commit", start)), "POST", "/"
    )
    await asyncio.gather(*tasks)

    assert (reply.status, observer.names()) == (200, ["one", "later"])
