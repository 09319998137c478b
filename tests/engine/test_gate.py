"""The gate of a sync database, without a database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from anyio import CancelScope, create_task_group, to_thread
from anyio.lowlevel import checkpoint

from support.cancelling import Kind, at_each_suspension, by_scope, natively
from support.pool import eventually
from unitwork import PoolTimeoutError
from unitwork._gate import Gate

pytestmark = pytest.mark.anyio

Enter = Callable[[Gate], Awaitable[object]]


async def on_the_loop(gate: Gate) -> None:
    await gate.enter()


async def in_a_thread(gate: Gate) -> None:
    assert await to_thread.run_sync(gate.enter_in_thread)


WAYS = [on_the_loop, in_a_thread]


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_in_as_many_as_it_has_places(enter: Enter) -> None:
    gate = Gate(2)
    await enter(gate)
    await enter(gate)

    assert not gate.try_enter()
    gate.leave()
    assert gate.try_enter()


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_everybody_in_without_a_size(enter: Enter) -> None:
    gate = Gate(None)
    for _ in range(100):
        await enter(gate)

    assert gate.waiting == 0


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_in_who_has_waited_longest(enter: Enter) -> None:
    gate = Gate(1)
    order: list[int] = []

    async def pass_through(number: int) -> None:
        await enter(gate)
        order.append(number)
        gate.leave()

    await gate.enter()
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(pass_through(number))
            await eventually(lambda: gate.waiting == number + 1)  # noqa: B023  # at once
        gate.leave()

    assert order == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    gate = Gate(1)
    await gate.enter()
    waits = asyncio.create_task(gate.enter())
    await eventually(lambda: gate.waiting == 1)

    gate.leave()

    assert not gate.try_enter()
    await waits


@pytest.mark.parametrize("enter", WAYS)
async def test_who_has_waited_too_long_is_told_how_many_are_inside(
    enter: Enter,
) -> None:
    gate = Gate(1, timeout=0.01)
    await gate.enter()

    with pytest.raises(PoolTimeoutError, match=r"within 0\.01 seconds: 1 units hold"):
        await enter(gate)

    assert gate.waiting == 0
    gate.leave()
    await enter(gate)


async def test_does_not_wait_on_the_thread_of_the_event_loop() -> None:
    gate = Gate(1)
    assert gate.enter_in_thread()

    with pytest.raises(PoolTimeoutError, match="would block the event loop") as caught:
        gate.enter_in_thread()

    assert "Depends(db.session)" in str(caught.value)


async def test_a_thread_of_the_users_own_takes_a_place_only_if_one_is_free() -> None:
    gate = Gate(1)
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(gate.enter_in_thread).result() is True
        assert executor.submit(gate.enter_in_thread).result() is False

    gate.leave()
    assert gate.try_enter()
    assert not gate.try_enter()


# Threads


async def test_a_waiting_thread_lends_its_place_among_the_threads() -> None:
    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    gate = Gate(1)
    await gate.enter()
    waits = asyncio.create_task(in_a_thread(gate))
    await eventually(lambda: gate.waiting == 1)

    await to_thread.run_sync(gate.leave)  # hangs, where there is no thread for it
    await waits

    assert limiter.total_tokens == 1
    limiter.total_tokens = before


async def test_a_place_that_was_lent_is_taken_back_however_the_wait_ends() -> None:
    limiter = to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    gate = Gate(1, timeout=0.01)
    await gate.enter()

    with pytest.raises(PoolTimeoutError):
        await in_a_thread(gate)
    with CancelScope() as scope:
        scope.cancel()
        await in_a_thread(gate)
    cancelled = asyncio.create_task(in_a_thread(gate))
    await checkpoint()
    cancelled.cancel()
    await asyncio.wait((cancelled,))

    await eventually(lambda: gate.waiting == 0)
    await eventually(lambda: limiter.total_tokens == before)


async def test_threads_and_tasks_never_are_more_than_it_has_places() -> None:
    gate = Gate(3)
    inside, most = count(), []
    present: set[int] = set()

    async def pass_through(enter: Enter) -> None:
        await enter(gate)
        number = next(inside)
        present.add(number)
        most.append(len(present))
        await checkpoint()
        present.remove(number)
        gate.leave()

    async with create_task_group() as group:
        for _ in range(50):
            group.start_soon(pass_through, on_the_loop)
            group.start_soon(pass_through, in_a_thread)

    assert len(most) == 100
    assert max(most) == 3
    assert gate._free == 3


async def test_one_gate_serves_two_event_loops() -> None:
    gate = Gate(1)
    await gate.enter()
    entered = threading.Event()

    def elsewhere() -> None:
        asyncio.run(gate.enter())
        entered.set()
        gate.leave()

    other = threading.Thread(target=elsewhere)
    other.start()
    await eventually(lambda: gate.waiting == 1)
    gate.leave()
    await gate.enter()
    other.join()

    assert entered.is_set()


# Cancellation


@pytest.mark.parametrize(
    ("enter", "kind"),
    # A thread does not hear of `task.cancel()`: its session gives the place back.
    [(on_the_loop, natively), (on_the_loop, by_scope), (in_a_thread, by_scope)],
)
async def test_one_who_is_cancelled_at_any_moment_takes_no_place_along(
    enter: Enter, kind: Kind
) -> None:
    gate = Gate(1)
    inside: list[int] = []

    async def wait_and_pass(k: int) -> None:
        asyncio.get_running_loop().call_later(0.002, gate.leave)
        await enter(gate)
        gate.leave()
        inside.append(k)

    gate.try_enter()
    async for _ in at_each_suspension(wait_and_pass, kind):
        await eventually(lambda: gate._free == 1)
        gate.try_enter()
    assert inside


async def test_one_who_is_cancelled_just_when_let_in_passes_the_place_on() -> None:
    gate = Gate(1)
    await gate.enter()
    first = asyncio.create_task(gate.enter())
    await eventually(lambda: gate.waiting == 1)
    second = asyncio.create_task(gate.enter())
    await eventually(lambda: gate.waiting == 2)

    gate.leave()  # the first is let in, and has yet to notice
    first.cancel()

    await second
    assert first.cancelled()
    assert gate._free == 0
