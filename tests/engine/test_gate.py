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
from unitwork._engine.admission import AdmissionGate

pytestmark = pytest.mark.anyio

Enter = Callable[[AdmissionGate], Awaitable[object]]


async def on_the_loop(gate: AdmissionGate) -> None:
    await gate.acquire()


async def in_a_thread(gate: AdmissionGate) -> None:
    assert await to_thread.run_sync(gate.acquire_in_thread)


WAYS = [on_the_loop, in_a_thread]


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_in_as_many_as_it_has_places(enter: Enter) -> None:
    gate = AdmissionGate(2)
    await enter(gate)
    await enter(gate)

    assert not gate.try_acquire()
    gate.release()
    assert gate.try_acquire()


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_everybody_in_without_a_size(enter: Enter) -> None:
    gate = AdmissionGate(None)
    for _ in range(100):
        await enter(gate)

    assert gate.waiting == 0


@pytest.mark.parametrize("enter", WAYS)
async def test_lets_in_who_has_waited_longest(enter: Enter) -> None:
    gate = AdmissionGate(1)
    order: list[int] = []

    async def pass_through(number: int) -> None:
        await enter(gate)
        order.append(number)
        gate.release()

    await gate.acquire()
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(pass_through(number))
            await eventually(lambda: gate.waiting == number + 1)  # noqa: B023  # at once
        gate.release()

    assert order == [0, 1, 2, 3, 4]


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    gate = AdmissionGate(1)
    await gate.acquire()
    waits = asyncio.create_task(gate.acquire())
    await eventually(lambda: gate.waiting == 1)

    gate.release()

    assert not gate.try_acquire()
    await waits


@pytest.mark.parametrize("enter", WAYS)
async def test_who_has_waited_too_long_is_told_how_many_are_inside(
    enter: Enter,
) -> None:
    gate = AdmissionGate(1, timeout=0.01)
    await gate.acquire()

    with pytest.raises(PoolTimeoutError, match=r"within 0\.01 seconds: 1 units hold"):
        await enter(gate)

    assert gate.waiting == 0
    gate.release()
    await enter(gate)


async def test_does_not_wait_on_the_thread_of_the_event_loop() -> None:
    gate = AdmissionGate(1)
    assert gate.acquire_in_thread()

    with pytest.raises(PoolTimeoutError, match="would block the event loop") as caught:
        gate.acquire_in_thread()

    assert "Depends(db.session)" in str(caught.value)


async def test_a_thread_of_the_users_own_takes_a_place_only_if_one_is_free() -> None:
    gate = AdmissionGate(1)
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(gate.acquire_in_thread).result() is True
        assert executor.submit(gate.acquire_in_thread).result() is False

    gate.release()
    assert gate.try_acquire()
    assert not gate.try_acquire()


# Threads


async def test_a_waiting_thread_lends_its_place_among_the_threads() -> None:
    limiter = to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    gate = AdmissionGate(1)
    await gate.acquire()
    waits = asyncio.create_task(in_a_thread(gate))
    await eventually(lambda: gate.waiting == 1)

    await to_thread.run_sync(gate.release)  # hangs, where there is no thread for it
    await waits

    assert limiter.total_tokens == 1
    limiter.total_tokens = before


async def test_a_place_that_was_lent_is_taken_back_however_the_wait_ends() -> None:
    limiter = to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    gate = AdmissionGate(1, timeout=0.01)
    await gate.acquire()

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
    gate = AdmissionGate(3)
    inside, most = count(), []
    present: set[int] = set()

    async def pass_through(enter: Enter) -> None:
        await enter(gate)
        number = next(inside)
        present.add(number)
        most.append(len(present))
        await checkpoint()
        present.remove(number)
        gate.release()

    async with create_task_group() as group:
        for _ in range(50):
            group.start_soon(pass_through, on_the_loop)
            group.start_soon(pass_through, in_a_thread)

    assert len(most) == 100
    assert max(most) == 3
    assert gate.in_use == 0


async def test_one_gate_serves_two_event_loops() -> None:
    gate = AdmissionGate(1)
    await gate.acquire()
    entered = threading.Event()

    def elsewhere() -> None:
        asyncio.run(gate.acquire())
        entered.set()
        gate.release()

    other = threading.Thread(target=elsewhere)
    other.start()
    await eventually(lambda: gate.waiting == 1)
    gate.release()
    await gate.acquire()
    other.join()

    assert entered.is_set()


# Cancellation


@pytest.mark.parametrize(
    ("enter", "kind"),
    # `task.cancel()` does not reach a thread: its session releases the permit.
    [(on_the_loop, natively), (on_the_loop, by_scope), (in_a_thread, by_scope)],
)
async def test_one_who_is_cancelled_at_any_moment_takes_no_place_along(
    enter: Enter, kind: Kind
) -> None:
    gate = AdmissionGate(1)
    inside: list[int] = []

    async def wait_and_pass(k: int) -> None:
        asyncio.get_running_loop().call_later(0.002, gate.release)
        await enter(gate)
        gate.release()
        inside.append(k)

    gate.try_acquire()
    async for _ in at_each_suspension(wait_and_pass, kind):
        await eventually(lambda: gate.in_use == 0)
        gate.try_acquire()
    assert inside


async def test_one_who_is_cancelled_just_when_let_in_passes_the_place_on() -> None:
    gate = AdmissionGate(1)
    await gate.acquire()
    first = asyncio.create_task(gate.acquire())
    await eventually(lambda: gate.waiting == 1)
    second = asyncio.create_task(gate.acquire())
    await eventually(lambda: gate.waiting == 2)

    gate.release()  # the first is let in, and has yet to notice
    first.cancel()

    await second
    assert first.cancelled()
    assert gate.in_use == 1


@pytest.mark.parametrize("size", [2, None])
async def test_counts_the_permits_in_use(size: int | None) -> None:
    gate = AdmissionGate(size)

    await gate.acquire()
    before = gate.in_use
    gate.release()

    assert (before, gate.in_use) == (1, 0)
