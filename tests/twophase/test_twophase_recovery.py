"""Two databases that are committed as one, and the process dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from anyio import to_thread
from sqlalchemy import make_url
from sqlalchemy.util import greenlet_spawn

from support.flavours import connect_mariadb
from support.lifespan import Life
from support.pairs import COMMIT, PREPARE, Pair, Side
from support.pool import eventually
from support.proxy import Line
from support.twophase import (
    ALL,
    NOTHING,
    SOME,
    add,
    back_in_reach,
    end_by_hand,
    only_pairs,
    recover_all,
)
from unitwork import arecover
from unitwork._execution.plan import Call, Pause, Plan
from unitwork._twophase import janitor
from unitwork._twophase.order import CommitOrder
from unitwork._twophase.resolve import recovery
from unitwork._twophase.xid import Xid
from unitwork._unit.database_base import core_of

pytestmark = pytest.mark.anyio


# A process that dies in the middle


async def kill_at(pair: Pair, which: int, words: tuple[bytes, ...]) -> None:
    """Let another process do the work, and kill it before it says *words*."""
    killed = asyncio.Event()

    def kill(line: Line) -> None:
        pair.mortal.kill()
        killed.set()
        for side in pair.sides:
            side.proxy.swallow()

    pair.sides[which].trap(words, kill)
    served = {s.name: f"{s.flavour.name} {s.flavour.url}" for s in pair.sides}
    pair.mortal.start(served)
    try:
        await asyncio.wait_for(killed.wait(), 20)
    except BaseException:
        pair.mortal.kill()
        raise
    finally:
        pair.mortal.wait()
    for side in pair.sides:
        side.proxy.forward()


CRASHES = {
    "before the second PREPARE": (1, PREPARE, ["first rolled back"], NOTHING),
    "before the first COMMIT": (
        0,
        COMMIT,
        ["second rolled back", "first rolled back"],
        NOTHING,
    ),
    "before the second COMMIT": (1, COMMIT, ["second committed"], ALL),
}


@pytest.mark.parametrize("crash", CRASHES)
async def test_what_a_crash_has_left_is_ended_alike_in_both(
    pair: Pair, crash: str
) -> None:
    which, words, done, stored = CRASHES[crash]
    await kill_at(pair, which, words)
    assert len(pair.prepared()) == len(done)

    assert await recover_all(pair) == done

    assert pair.seen() == stored
    assert await arecover(*pair.databases, min_age=0) == []


@pytest.mark.parametrize("crash", CRASHES)
@only_pairs(*SOME)
async def test_two_recoveries_at_once_agree(pair: Pair, crash: str) -> None:
    which, words, done, stored = CRASHES[crash]
    await kill_at(pair, which, words)

    found = await asyncio.gather(recover_all(pair), recover_all(pair))

    assert sorted(found[0] + found[1]) == sorted(done)
    assert pair.seen() == stored


@pytest.mark.parametrize("crash", CRASHES)
@only_pairs(*SOME)
async def test_a_recovery_that_dies_half_way_is_finished_by_the_next(
    pair: Pair, crash: str
) -> None:
    which, words, _, stored = CRASHES[crash]
    await kill_at(pair, which, words)
    left = pair.prepared()
    while len(pair.prepared()) == len(left):
        recovering = recovery(order_of(pair), 0)
        await drive(recovering, until=lambda: len(pair.prepared()) < len(left))

    await recover_all(pair)

    assert pair.seen() == stored


async def drive(plan: Plan[Any], until: Callable[[], bool] = lambda: False) -> Any:
    """Make the steps of a recovery, without waiting; go away *until* something is."""
    result: Any = None
    error: Exception | None = None
    while not until():
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value
        result = error = None
        if isinstance(step, Pause):
            continue
        try:
            result = await on_database(step)
        except Exception as caught:
            error = caught
    plan.close()
    return None


async def on_database(step: Any) -> Any:
    assert isinstance(step, Call)
    if step.is_async:
        return await greenlet_spawn(step.call)
    return await to_thread.run_sync(step.call)


async def test_what_was_prepared_between_two_looks_is_left_alone(pair: Pair) -> None:
    await kill_at(pair, 1, PREPARE)
    order = order_of(pair)
    other = str(Xid(order.fingerprint, "0", 1, 1))  # seen in the first look only
    plan = recovery(order, 60)
    next(plan)
    plan.send(([], []))
    assert isinstance(plan.send(([], [other])), Pause)

    assert await drive(plan) == []

    assert len(pair.prepared()) == 1
    await recover_all(pair)


async def test_what_depends_on_a_silent_database_is_left(pair: Pair) -> None:
    await kill_at(pair, 0, COMMIT)
    before = pair.prepared()
    pair.second.proxy.refusing = 10**6

    found = await arecover(*pair.databases, min_age=0)

    assert {each.action for each in found} == {"left"}
    assert pair.prepared() == before
    back_in_reach(pair.second)
    await recover_all(pair)
    assert pair.seen() == NOTHING


@only_pairs(("psycopg", "psycopg"), ("psycopg", "pymysql"), ("pymysql", "psycopg"))
async def test_what_others_have_prepared_is_never_touched(pair: Pair) -> None:
    fingerprint = order_of(pair).fingerprint
    theirs = ["somebody", "unitwork", "unitwork-1-2", str(Xid("0", "a", 1, 1))]
    theirs.append(str(Xid(fingerprint, "b", 1, 2)))  # in the wrong database
    for name in theirs:
        prepare_by_hand(pair.first, name)

    found = await arecover(*pair.databases, min_age=0)

    assert [each for each in found if each.database == "first"] == []
    assert set(theirs) <= set(pair.first.prepared())
    for name in theirs:
        await eventually(lambda name=name: end_by_hand(pair.first, name))


def order_of(pair: Pair) -> CommitOrder:
    return CommitOrder([core_of(database) for database in pair.databases])


def prepare_by_hand(side: Side, name: str) -> None:
    if side.is_mariadb:
        with connect_mariadb(make_url(side.direct)) as line:
            for verb in ("START", "END", "PREPARE"):
                line.query(f"XA {verb} '{name}'")
                if verb == "START":
                    line.query("INSERT INTO item (name) VALUES (UUID())")
        return
    plain = make_url(side.direct).set(drivername="postgresql")
    with psycopg.connect(plain.render_as_string(False), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(f"PREPARE TRANSACTION '{name}'")


# While the application runs


async def test_the_application_recovers_while_it_runs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await kill_at(pair, 1, COMMIT)
    monkeypatch.setattr(janitor, "MIN_AGE", 0.01)
    life = Life(pair.app(add, add))
    await life.start()

    await eventually(lambda: pair.prepared() == [])

    await life.stop()
    assert pair.seen() == ALL


async def test_an_application_starts_without_its_databases(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor, "MIN_AGE", 0.01)
    for side in pair.sides:
        side.proxy.refusing = 10**6
    life = Life(pair.app(add, add))

    assert (await life.start())["type"] == "lifespan.startup.complete"

    for side in pair.sides:
        back_in_reach(side)
    await life.stop()
