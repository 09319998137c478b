"""What is called without `await` must be a plain function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.failures import adding, ok, raising
from support.flavours import FEW, Flavour, Observer, only
from support.models import add_item
from unitwork import (
    AsyncDatabase,
    DatabaseSettings,
    DBSessionMiddleware,
    RetryPolicy,
    TransactionOptions,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio


async def never(*args: object) -> bool:
    return False


class Never:
    async def __call__(self, *args: object) -> bool:
        return False

    async def method(self, *args: object) -> bool:
        return False


class Verifier:
    def __init__(self, before_commit: Any, committed: Any) -> None:
        self.before_commit = before_commit
        self.committed = committed


def plainly(*args: object) -> Any:
    """Plain to look at, but its result is to be awaited."""
    return never()


ASYNC: list[Any] = [
    never,
    Never(),
    Never().method,
    partial(never),
    partial(Never()),
    partial(partial(Never().method), 1),
    staticmethod(never),
]

TAKING: dict[str, Callable[[Any], object]] = {
    "commit_when of routes": lambda given: TransactionOptions(commit_when=given),
    "commit_when": lambda given: DBSessionMiddleware(
        FastAPI(), AsyncDatabase("sqlite+aiosqlite://"), commit_when=given
    ),
    "options": lambda given: DBSessionMiddleware(
        FastAPI(), AsyncDatabase("sqlite+aiosqlite://"), options=given
    ),
    "rules": lambda given: RetryPolicy(rules=[given]),
    "before_retry": lambda given: RetryPolicy(before_retry=given),
    "engine": lambda given: AsyncDatabase(given),
    "before_commit": lambda given: DatabaseSettings(
        verify_commit=Verifier(given, bool)
    ),
    "committed": lambda given: DatabaseSettings(verify_commit=Verifier(bool, given)),
}


@pytest.mark.parametrize("given", ASYNC)
@pytest.mark.parametrize("name", TAKING)
def test_a_coroutine_function_is_refused_at_once(name: str, given: Any) -> None:
    with pytest.raises(UsageError, match="is a coroutine function"):
        TAKING[name](given)


@FEW
@pytest.mark.parametrize("result", [never, lambda: 1, lambda: "no", lambda: None])
@pytest.mark.parametrize("then", [ok, raising(HTTPException, 500)])
async def test_a_policy_that_returns_no_bool_rolls_back(
    flavour: Flavour, observer: Observer, result: Any, then: Any
) -> None:
    app = serve_fastapi(flavour, adding(then), commit_when=lambda ending: result())

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UsageError)
    assert "commit_when has returned" in str(reply.error)
    assert observer.names() == []


@FEW
async def test_a_route_whose_policy_returns_an_awaitable_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    options = TransactionOptions(commit_when=plainly)
    app = serve_fastapi(flavour, adding(ok), options=options)

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UsageError)
    assert observer.names() == []


@only("asyncpg", "psycopg")
async def test_a_verifier_whose_mark_is_an_awaitable_makes_the_commit_fail(
    flavour: Flavour, observer: Observer
) -> None:
    settings = DatabaseSettings(verify_commit=Verifier(plainly, plainly))
    verified = flavour.another(settings=settings)

    with pytest.raises(UsageError, match="before_commit"):
        await verified.work(add_item)
    await verified.dispose()

    assert observer.names() == []


@only("sqlite3")
async def test_a_sync_block_whose_hook_returns_an_awaitable_rolls_back(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        current_unit().before_commit(plainly)
        add_item(session)

    with pytest.raises(UsageError, match="a hook has returned"):
        await flavour.work(body)

    assert observer.names() == []


def test_a_rule_that_returns_an_awaitable_is_refused() -> None:
    with pytest.raises(UsageError, match="a rule has returned"):
        RetryPolicy(rules=[plainly]).retryable(KeyError())
