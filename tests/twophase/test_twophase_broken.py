"""Two databases that are committed as one, and a connection breaks in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.pairs import COMMIT, PREPARE, Pair, Side
from support.pool import eventually
from support.proxy import Line
from support.twophase import (
    ALL,
    NOTHING,
    SOME,
    add,
    back_in_reach,
    only_pairs,
    recover_all,
)
from unitwork import CommitUnknownError, DatabaseSettings, Outcome, PartialCommitError

pytestmark = pytest.mark.anyio

GIVING_UP = DatabaseSettings(verify_timeout=0.2)
BRIEF = DatabaseSettings(verify_timeout=0.8)
IMPATIENT = DatabaseSettings(commit_timeout=1.0)


def cut(line: Line) -> None:
    line.cut()


def with_settings(settings: DatabaseSettings) -> Callable[[Any], Any]:
    def mark(test: Any) -> Any:
        test.settings = settings
        return test

    return mark


@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_prepare_that_is_lost_leaves_nothing(
    pair: Pair, which: int, on_answer: bool
) -> None:
    pair.sides[which].trap(PREPARE, cut, on_answer=on_answer)

    reply = await pair.post(add, add)

    assert reply.status == 500
    assert pair.units[0].outcome is Outcome.ROLLED_BACK
    assert pair.prepared() == []
    assert pair.seen() == NOTHING


@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("which", [0, 1])
async def test_a_commit_that_is_lost_is_sent_again_elsewhere(
    pair: Pair, which: int, on_answer: bool
) -> None:
    pair.sides[which].trap(COMMIT, cut, on_answer=on_answer)

    reply = await pair.post(add, add)

    assert (reply.status, reply.error) == (200, None)
    assert pair.units[0].outcome is Outcome.COMMITTED
    assert pair.seen() == ALL


@with_settings(BRIEF)
async def test_a_short_time_is_enough_to_send_a_commit_again(pair: Pair) -> None:
    pair.second.trap(COMMIT, cut)

    reply = await pair.post(add, add)

    assert (reply.status, reply.error) == (200, None)
    assert pair.seen() == ALL


def out_of_reach(side: Side) -> Callable[[Line], None]:
    def act(line: Line) -> None:
        side.proxy.refusing = 10**6
        line.cut()

    return act


@with_settings(GIVING_UP)
async def test_a_second_out_of_reach_is_committed_by_recovery(pair: Pair) -> None:
    pair.second.trap(COMMIT, out_of_reach(pair.second))

    reply = await pair.post(add, add)

    error = reply.error
    assert isinstance(error, PartialCommitError)
    assert (error.committed, error.unknown) == (("first",), ("second",))
    assert error.rolled_back == ()
    assert error.__cause__ is not None
    assert pair.units[0].outcome is Outcome.PARTIAL
    assert pair.hooks == ["on_unknown"]
    back_in_reach(pair.second)
    await recover_all(pair)  # unless an attempt under way has reached it by itself
    await eventually(lambda: pair.seen() == ALL)


@with_settings(GIVING_UP)
@pytest.mark.parametrize("on_answer", [False, True])
async def test_a_first_out_of_reach_is_unknown_and_recovery_settles_it(
    pair: Pair, on_answer: bool
) -> None:
    pair.first.trap(COMMIT, out_of_reach(pair.first), on_answer=on_answer)

    reply = await pair.post(add, add)

    assert type(reply.error) is CommitUnknownError
    assert "'first', 'second'" in str(reply.error)
    assert pair.units[0].outcome is Outcome.UNKNOWN
    assert pair.hooks == ["on_unknown"]
    back_in_reach(pair.first)
    await recover_all(pair)
    assert pair.seen() == (ALL if on_answer else NOTHING)


@with_settings(GIVING_UP)
@pytest.mark.parametrize("on_answer", [False, True])
async def test_a_prepare_that_nobody_can_settle_is_rolled_back_by_recovery(
    pair: Pair, on_answer: bool
) -> None:
    pair.second.trap(PREPARE, out_of_reach(pair.second), on_answer=on_answer)

    reply = await pair.post(add, add)

    assert type(reply.error) is CommitUnknownError
    assert pair.prepared() != []
    back_in_reach(pair.second)
    done = await recover_all(pair)
    assert done == ["second rolled back"] * on_answer + ["first rolled back"]
    assert pair.seen() == NOTHING


@with_settings(IMPATIENT)
@only_pairs(*SOME)
@pytest.mark.parametrize("words", [PREPARE, COMMIT])
async def test_a_network_that_swallows_is_not_waited_for(
    pair: Pair, words: tuple[bytes, ...]
) -> None:
    pair.second.trap(words, lambda line: None)

    reply = await pair.post(add, add)

    assert reply.status == (200 if words is COMMIT else 500)
    assert pair.prepared() == []
    assert pair.seen() == (ALL if words is COMMIT else NOTHING)


@pytest.mark.filterwarnings("ignore::unitwork.errors.SessionStateWarning")
@with_settings(IMPATIENT)
@only_pairs(("psycopg", "pymysql"), ("asyncmy", "asyncmy"))
async def test_a_connection_that_has_changed_its_database_is_not_waited_for(
    pair: Pair,
) -> None:
    def add_and_leave(session: Session) -> None:
        add(session)
        session.execute(text("USE information_schema"))

    pair.second.trap(COMMIT, lambda line: line.hold())

    reply = await pair.post(add, add_and_leave)

    assert (reply.status, reply.error) == (200, None)
    assert pair.seen() == ALL
