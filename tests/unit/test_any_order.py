"""Whatever ends a unit, in any order and at any moment: the model stays right.

Everything above the SQLAlchemy session is real. The session waits, in each flush,
COMMIT and ROLLBACK, until the test says how that goes; and so does each hook.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.modelled import COMMIT, ROLL_BACK, World
from support.waiting_session import FAIL, LOST, OK, STORED
from unitwork import DeadlineExceededError
from unitwork._execution.plan import Plan
from unitwork._unit import endings
from unitwork._unit.unit_of_work import facade_of
from unitwork.outcome import Verdict


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


def deadline(world: World) -> None:
    if world.unit.cut_off(DeadlineExceededError("too late")):
        world.cancel(0)


def start(world: World, verdict: Verdict) -> None:
    def ending() -> Plan[None]:
        return endings.end_before_body(world.unit, verdict)

    world.act("start", ending, promises=verdict.commit)


def last_chunk(world: World, verdict: Verdict) -> None:
    def ending() -> Plan[None]:
        return endings.end_and_close(world.unit, lambda: verdict)

    world.act("last chunk", ending, closes=True, promises=verdict.commit)


def leave(world: World) -> None:
    world.act("leave", lambda: endings.close(world.unit, "it left"), closes=True)


def message(world: World, verdict: Verdict) -> None:
    world.act("message", lambda: world.message(verdict), promises=verdict.commit)


ACTIONS: dict[str, Callable[[World], object]] = {
    "work": World.work,
    "hook": lambda w: w.hook(before=False),
    "before_commit": lambda w: w.hook(before=True),
    "swallow": lambda w: w.unit.lose(LookupError("swallowed")),
    "rollback_only": lambda w: w.unit.is_open and facade_of(w.unit).rollback_only(),
    "commit_anyway": lambda w: w.unit.is_open and facade_of(w.unit).commit_anyway(),
    "start": lambda w: start(w, COMMIT),
    "start an error": lambda w: start(w, ROLL_BACK),
    "last chunk": lambda w: last_chunk(w, COMMIT),
    "block fails": lambda w: last_chunk(w, ROLL_BACK),
    "message": lambda w: message(w, COMMIT),
    "message fails": lambda w: message(w, ROLL_BACK),
    "leave": leave,
    "deadline": deadline,
    "shut down": lambda w: w.act("shutdown", lambda: endings.shut_down(w.unit)),
    "cancel first": lambda w: w.cancel(0),
    "cancel second": lambda w: w.cancel(1),
    **{how: lambda w, how=how: w.go(how) for how in (OK, FAIL, STORED, LOST)},
}
LIKELY = [*("work", "hook", "before_commit", "start") * 2, "last chunk", *(OK,) * 12]
actions = st.lists(
    st.tuples(
        st.sampled_from([*ACTIONS, *LIKELY, STORED, LOST, "time passes"]),
        st.sampled_from([12, 12, 1, 0]),
    ),
    max_size=12,
)


async def turn(rounds: int) -> None:
    for _ in range(rounds):
        await asyncio.sleep(0)


async def play(chosen: list[tuple[str, int]]) -> list[str]:
    """Do what was *chosen*, end all that is left; give what was wrong."""
    world = World()
    world.work()
    for name, rounds in chosen:
        if name == "time passes":
            await let_time_pass(world)
        else:
            ACTIONS[name](world)
            await turn(rounds)
    await end_all(world)
    leave(world)
    await end_all(world)
    world.check(not world.written, "something is still open")
    for actor in world.actors:
        world.check(actor.task.done(), f"{actor.name} never ends")
        actor.task.cancel()
    world.check_hooks()
    return world.faults


async def let_time_pass(world: World) -> None:
    await turn(12)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    loop.skipped += 100
    world.late = True
    await turn(12)
    world.check_shutdown()


async def end_all(world: World) -> None:
    for _ in range(99):
        if all(actor.task.done() for actor in world.actors):
            return
        world.go(OK)
        await turn(12)


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    logging.disable()
    loop = Loop()
    yield loop
    loop.close()
    logging.disable(logging.NOTSET)


@settings(max_examples=4000, deadline=None, database=None, print_blob=True)
@given(chosen=st.tuples(actions, actions, actions))
def test_any_order(loop: Loop, chosen: Sequence[Sequence[tuple[str, int]]]) -> None:
    assert loop.run_until_complete(play(list(chain(*chosen)))) == []
