"""Hooks that fail, and what can be no hook."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import FEW, Flavour, Observer
from support.hooking import OurError, on_commit
from support.models import add_item
from unitwork import (
    AsyncDatabase,
    Database,
    MissingSessionError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio


def fail() -> None:
    raise OurError


# When they fail


@FEW
@pytest.mark.parametrize("hook", [fail, partial(fail)], ids=["plain", "partial"])
async def test_that_fails_is_logged_and_the_others_are_called(
    flavour: Flavour,
    observer: Observer,
    done: list[str],
    caplog: pytest.LogCaptureFixture,
    hook: Callable[[], None],
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(hook)
        on_commit(done.append, "others")

    await flavour.work(body)

    (record,) = [r for r in caplog.records if r.name == "unitwork"]
    assert record.levelno == logging.ERROR
    assert "fail failed" in record.message
    assert (done, observer.names()) == (["others"], ["one"])


@FEW
async def test_that_fails_without_a_transaction_is_logged_too(
    flavour: Flavour, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        on_commit(fail)
        on_commit(done.append, "others")

    await flavour.work(body)

    assert (done, len(caplog.records)) == (["others"], 1)


async def test_that_fails_leaves_the_answer_as_it_was(
    flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> str:
        add_item(session)
        on_commit(fail)
        return "fine"

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, reply.json, reply.complete) == (200, "fine", True)
    assert "OurError" in caplog.text


class Exit(BaseException):
    """As `SystemExit`, which would end the event loop of the test as well."""


@FEW
async def test_that_exits_lets_none_of_a_rollback_be_called(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def leave() -> None:
        raise Exit

    def body(session: Session) -> None:
        add_item(session)
        on_commit(leave)
        current_unit().on_rollback(done.append, "rolled back")

    with pytest.raises(Exit):
        await call(serve_fastapi(flavour, body), "POST", "/")

    assert (done, observer.names()) == ([], ["one"])


async def test_that_fails_after_a_rollback_hides_no_error(
    flavour: Flavour, done: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_rollback(fail)
        current_unit().on_rollback(done.append, "others")
        raise LookupError

    with pytest.raises(LookupError):
        await flavour.work(body)

    assert (done, len(caplog.records)) == (["others"], 1)


async def test_that_fails_before_commit_rolls_everything_back(
    flavour: Flavour, observer: Observer, done: list[str]
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        unit = current_unit()
        unit.before_commit(fail)
        unit.before_commit(done.append, "not any more")
        unit.on_commit(done.append, "dropped")
        unit.on_rollback(done.append, "called")

    with pytest.raises(OurError):
        await flavour.work(body)

    assert (done, observer.names()) == (["called"], [])


# Misuse


async def coroutine_function() -> None:
    pass


def test_a_sync_block_takes_no_coroutine_function() -> None:
    db = Database("sqlite://")
    with db.transaction():
        unit = current_unit()
        for register in (unit.before_commit, unit.on_commit, unit.on_rollback):
            with pytest.raises(UsageError, match=r"coroutine function.*plain"):
                register(coroutine_function)
            with pytest.raises(UsageError, match="coroutine function"):
                register(partial(coroutine_function))
    db.dispose()


async def test_what_can_not_be_called_is_no_hook() -> None:
    db = AsyncDatabase("sqlite+aiosqlite://")
    async with db.transaction():
        unit = current_unit()
        for register in (unit.before_commit, unit.on_commit, unit.on_rollback):
            with pytest.raises(UsageError, match="must be callable, this is 'text'"):
                register("text")  # type: ignore[arg-type]  # that is the point
    await db.dispose()


def test_there_are_none_outside_of_a_unit() -> None:
    with pytest.raises(MissingSessionError, match="DBSessionMiddleware"):
        current_unit()
