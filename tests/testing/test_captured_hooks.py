"""`capture_on_commit()`: the cases of Django's `captureOnCommitCallbacks()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import Flavour, everywhere, only
from support.models import add_item
from unitwork import current_unit
from unitwork.testing import capture_on_commit

pytestmark = pytest.mark.anyio

Body = Callable[[Session], None]


def registering(*hooks: Callable[[], Any]) -> Body:
    """Write, and register *hooks*."""

    def body(session: Session) -> None:
        add_item(session)
        for hook in hooks:
            current_unit().on_commit(hook)

    return body


@everywhere
async def test_captures_and_does_not_call(flavour: Flavour) -> None:
    called: list[str] = []
    body = registering(partial(called.append, "a"), partial(called.append, "b"))

    with capture_on_commit() as hooks:
        await call(serve_fastapi(flavour, body), "POST", "/")

    assert (len(hooks), called) == (2, [])
    for hook in hooks:
        hook()
    assert called == ["a", "b"]


@everywhere
async def test_calls_where_they_are_always_called(flavour: Flavour) -> None:
    called: list[str] = []

    with capture_on_commit(execute=True) as hooks:
        await flavour.work(registering(partial(called.append, "a")))
        assert called == ["a"]

    assert len(hooks) == 1


@everywhere
async def test_those_that_a_hook_registers_are_captured_too(flavour: Flavour) -> None:
    called: list[int] = []

    def register(depth: int) -> None:
        called.append(depth)
        for _ in range(depth):
            current_unit().on_commit(register, depth - 1)

    with capture_on_commit(execute=True) as hooks:
        await flavour.work(registering(partial(register, 2)))

    assert called == [2, 1, 1, 0, 0]
    assert len(hooks) == 5


@everywhere
async def test_those_of_a_rollback_are_not_there(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        registering(print)(session)
        raise HTTPException(409)

    with capture_on_commit(execute=True) as hooks:
        await call(serve_fastapi(flavour, body), "POST", "/")

    assert hooks == []


@everywhere
async def test_nor_those_of_a_savepoint_that_is_undone(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with session.begin_nested() as savepoint:
            current_unit().on_commit(print)
            savepoint.rollback()

    with capture_on_commit() as hooks:
        await flavour.work(body)

    assert hooks == []


@everywhere
async def test_a_commit_by_hand_is_a_commit(flavour: Flavour) -> None:
    def body(session: Session) -> None:
        registering(print)(session)
        session.commit()

    with capture_on_commit() as hooks:
        await flavour.work(body)

    assert len(hooks) == 1


@everywhere
async def test_one_that_fails_is_captured(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise LookupError("no mail today")

    with capture_on_commit(execute=True) as hooks:
        await flavour.work(registering(fail))

    assert (len(hooks), "no mail today" in caplog.text) == (1, True)


@only("aiosqlite", "asyncpg")
async def test_a_coroutine_function_is_awaited_by_the_test(flavour: Flavour) -> None:
    called: list[str] = []

    async def send() -> None:
        called.append("sent")

    with capture_on_commit() as hooks:
        await call(serve_fastapi(flavour, registering(send)), "POST", "/")

    [hook] = hooks
    sending: Any = hook()
    assert called == []
    await sending
    assert called == ["sent"]


@everywhere
async def test_hooks_of_a_rollback_are_called_as_ever(flavour: Flavour) -> None:
    called: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(called.append, "undone")
        current_unit().rollback_only()

    with capture_on_commit() as hooks:
        await flavour.work(body)

    assert (hooks, called) == ([], ["undone"])


@only("sqlite3", "asyncpg")
async def test_only_of_the_databases_that_are_named(flavour: Flavour) -> None:
    other = flavour.another(name="other")
    called: list[str] = []

    with capture_on_commit(other.db) as hooks:
        await flavour.work(registering(partial(called.append, "a")))

    assert (hooks, called) == ([], ["a"])
    await other.dispose()


@only("sqlite3", "asyncpg")
async def test_after_the_block_they_are_called_again(flavour: Flavour) -> None:
    called: list[str] = []
    with capture_on_commit():
        pass

    await asyncio.gather(flavour.work(registering(partial(called.append, "a"))))

    assert called == ["a"]
