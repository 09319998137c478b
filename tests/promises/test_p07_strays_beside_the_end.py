"""P7: what a stray does beside the end of its unit is a part of it, or is refused."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IllegalStateChangeError, ResourceClosedError
from sqlalchemy.orm import Session

from support.flavours import EVERY, Flavour, Observer, only
from support.models import Item, add_item
from support.pool import check_pool_is_whole
from support.strays import NAME, Stray
from unitwork import SessionEndedError

pytestmark = pytest.mark.anyio


REFUSED = (SessionEndedError, IllegalStateChangeError, ResourceClosedError)
"""The last one if a thread goes on once the connection is back in the pool."""


def execute(session: Session) -> Any:
    session.execute(insert(Item).values(name=NAME))


def flush(session: Session) -> Any:
    add_item(session, NAME)


@only(*EVERY)
async def test_a_statement_that_comes_after_the_rollback_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, execute)
    stray.go_on_at("rollback")

    reply = await stray.request(409)

    assert (reply.status, reply.complete) == (409, True)
    assert isinstance(await stray.error(), REFUSED)
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_a_statement_that_comes_after_the_commit_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, execute)
    stray.go_on_at("commit")

    reply = await stray.request(200)

    assert (reply.status, reply.complete) == (200, True)
    assert isinstance(await stray.error(), REFUSED)
    assert observer.names() == ["one"]
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_the_commit_waits_for_a_flush_that_is_under_way(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, flush)

    reply = await stray.request_that_waits(200)

    assert (reply.status, reply.complete) == (200, True)
    assert await stray.error() is None
    assert observer.names() == ["one", NAME]


@only(*EVERY)
async def test_the_rollback_waits_for_a_flush_that_is_under_way(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, flush)

    reply = await stray.request_that_waits(409)

    assert (reply.status, reply.complete) == (409, True)
    assert observer.names() == []
    await check_pool_is_whole(flavour)


@only(*EVERY)
async def test_the_commit_waits_for_a_stray_that_connects(
    flavour: Flavour, observer: Observer
) -> None:
    stray = Stray(flavour, lambda session: session.connection(), connects=True)

    reply = await stray.request_that_waits(200)

    assert (reply.status, reply.complete) == (200, True)
    assert await stray.error() is None
    assert observer.names() == ["one"]
