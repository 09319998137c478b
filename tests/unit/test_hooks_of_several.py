"""Hooks of a unit with two databases: each belongs to the transactions it was in."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from fastapi import HTTPException
from sqlalchemy.orm import Session

from support.flavours import only
from support.models import add_item
from support.several import Two
from unitwork import current_unit

pytestmark = pytest.mark.anyio
pairs = only("sqlite3", "asyncpg")


@pytest.fixture
def done() -> list[str]:
    return []


def register(done: list[str], name: str) -> None:
    current_unit().on_commit(done.append, f"{name} committed")
    current_unit().on_rollback(done.append, f"{name} rolled back")


@pairs
async def test_of_the_one_outlive_the_rollback_of_the_other(
    two: Two, done: list[str]
) -> None:
    def in_second(session: Session) -> None:
        add_item(session)
        session.rollback()

    async def endpoint() -> None:
        await two.first.do(
            await two.first.db.session(),
            lambda session: (add_item(session), register(done, "first")),
        )
        await two.second.do(await two.second.db.session(), in_second)

    reply = await two.request(endpoint)

    assert (reply.status, done) == (200, ["first committed"])
    assert two.seen() == (["one"], [])


@pairs
async def test_of_both_are_dropped_with_either(two: Two, done: list[str]) -> None:
    def in_second(session: Session) -> None:
        add_item(session)
        register(done, "both")
        session.rollback()

    async def endpoint() -> None:
        await two.do_both(add_item, in_second)

    reply = await two.request(endpoint)

    assert (reply.status, done) == (200, ["both rolled back"])
    assert two.seen() == (["one"], [])


@pairs
async def test_that_belong_to_neither_are_dropped_with_either(
    two: Two, done: list[str]
) -> None:
    def in_second(session: Session) -> None:
        add_item(session)
        session.rollback()

    async def endpoint() -> None:
        register(done, "all")
        await two.do_both(add_item, in_second)

    reply = await two.request(endpoint)

    assert (reply.status, done) == (200, ["all rolled back"])


@pairs
async def test_are_due_once_the_last_of_theirs_is_committed_by_hand(
    two: Two, done: list[str]
) -> None:
    async def endpoint() -> None:
        register(done, "all")
        await two.do_both(add_item, add_item)
        await two.do_both(commit, lambda session: None)
        current_unit().rollback_only()

    await two.request(endpoint)

    assert done == ["all rolled back"]
    assert two.seen() == (["one"], [])


@pairs
async def test_of_the_one_are_due_though_the_other_fails(
    two: Two, done: list[str]
) -> None:
    def in_first(session: Session) -> None:
        add_item(session)
        register(done, "first")
        session.commit()

    def in_second(session: Session) -> None:
        add_item(session)
        register(done, "second")
        raise HTTPException(409)

    async def endpoint() -> None:
        await two.do_both(in_first, in_second)

    reply = await two.request(endpoint)

    assert (reply.status, done) == (409, ["first committed", "second rolled back"])


@pairs
async def test_of_a_savepoint_in_one_outlive_a_savepoint_in_the_other(
    two: Two, done: list[str]
) -> None:
    def in_first(session: Session) -> None:
        with session.begin_nested():
            add_item(session)
            register(done, "first")

    def in_second(session: Session) -> None:
        with suppress(LookupError), session.begin_nested():
            add_item(session)
            raise LookupError

    async def endpoint() -> None:
        await two.do_both(in_first, in_second)

    await two.request(endpoint)

    assert (done, two.seen()) == (["first committed"], (["one"], []))


def commit(session: Session) -> Any:
    session.commit()
