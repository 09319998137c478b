"""`Uncancelled`: work goes on in its task, though that is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from anyio import CancelScope, wait_all_tasks_blocked

from unitwork._concurrency.uncancelled import Uncancelled
from unitwork._concurrency.watchdog import scheduler

pytestmark = pytest.mark.anyio


class Work:
    """Waits for *answer*; *steps* has what has happened."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.steps: list[str] = []
        self.patience: float | None = None
        self.seconds = 60.0

    async def wait(self) -> str:
        try:
            return await self.answer
        except BaseException as error:
            self.steps.append(type(error).__name__)
            raise

    def abort(self) -> None:
        self.steps.append("abort")

    def shielded(self, work: Coroutine[Any, Any, Any] | None = None) -> Uncancelled:
        return Uncancelled(
            work or self.wait(), self.seconds, self.abort, lambda: self.patience
        )

    async def run(self) -> str:
        """Await it as a request does, and raise what was held back."""
        shielded = self.shielded()
        result: str = await shielded
        self.steps.append(result)
        if shielded.cancelled is not None:
            raise shielded.cancelled
        return result


@pytest.fixture
async def work() -> Work:
    return Work()


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_it_gives_the_result(work: Work) -> None:
    work.answer.set_result("done")

    shielded = work.shielded()

    assert await shielded == "done"
    assert shielded not in scheduler.due


async def test_it_gives_the_result_of_what_it_had_to_wait_for(work: Work) -> None:
    asyncio.get_running_loop().call_soon(work.answer.set_result, "done")

    assert await work.shielded() == "done"


@pytest.mark.parametrize("delay", [0, 1])
async def test_it_raises_the_error(work: Work, delay: int) -> None:
    asyncio.get_running_loop().call_soon(work.answer.set_exception, LookupError())
    await turns(1 - delay)

    with pytest.raises(LookupError):
        await work.shielded()
    assert work.steps == ["LookupError"]


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_a_cancelled_task_ends_its_work_first(work: Work, times: int) -> None:
    task = asyncio.create_task(work.run())
    await turns()
    for _ in range(times):
        task.cancel()
        await turns(times)
    work.answer.set_result("done")
    await asyncio.wait((task,))

    assert task.cancelled()
    assert work.steps == ["done"]


async def test_so_does_one_that_is_cancelled_twice_at_once(work: Work) -> None:
    task = asyncio.create_task(work.run())
    await turns()
    task.cancel()
    task.cancel()
    await turns()
    work.answer.set_result("done")
    await asyncio.wait((task,))

    assert (task.cancelled(), task.cancelling()) == (True, 2)
    assert work.steps == ["done"]


async def test_a_cancelled_scope_ends_it_first_and_does_not_spin(work: Work) -> None:
    loop = asyncio.get_running_loop()
    with CancelScope() as scope:
        loop.call_soon(scope.cancel)
        loop.call_later(0.02, work.answer.set_result, "done")
        await work.run()

    assert scope.cancelled_caught
    assert work.steps == ["done"]


@pytest.mark.parametrize("first", ["answer", "cancel"])
async def test_a_cancellation_that_comes_with_the_answer(
    work: Work, first: str
) -> None:
    task = asyncio.create_task(work.run())
    await turns()
    calls: dict[str, Callable[[], object]] = {
        "answer": lambda: work.answer.set_result("done"),
        "cancel": task.cancel,
    }
    calls.pop(first)()
    next(iter(calls.values()))()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert work.steps == ["done"]


async def test_a_cancellation_before_the_first_await_is_held_back(work: Work) -> None:
    async def cancel_itself() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        asyncio.get_running_loop().call_soon(work.answer.set_result, "done")
        return await work.run()

    task = asyncio.create_task(cancel_itself())
    await asyncio.wait((task,))

    assert task.cancelled()
    assert work.steps == ["done"]


async def test_without_patience_the_work_is_cancelled(work: Work) -> None:
    work.patience = 0
    task = asyncio.create_task(work.run())
    await turns()
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert work.steps == ["CancelledError"]


async def test_a_cancellation_of_what_is_awaited_is_the_works_own(work: Work) -> None:
    task = asyncio.create_task(work.run())
    await turns()
    work.answer.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert work.steps == ["CancelledError"]


async def test_anyio_sees_that_its_task_waits(work: Work) -> None:
    task = asyncio.create_task(work.run())
    await turns()
    await wait_all_tasks_blocked()
    work.answer.set_result("done")

    assert await task == "done"


async def test_it_passes_turns_of_the_event_loop_on(work: Work) -> None:
    assert await work.shielded(turns()) is None


async def test_a_cancellation_in_such_a_turn_is_held_back(work: Work) -> None:
    shielded = work.shielded(turns())

    async def run() -> None:
        await shielded

    task = asyncio.create_task(run())
    await turns(2)
    task.cancel()
    await task

    assert isinstance(shielded.cancelled, asyncio.CancelledError)


async def test_it_is_aborted_when_its_time_is_over(work: Work) -> None:
    work.seconds = 0.01

    def abort() -> None:
        work.answer.set_exception(ConnectionError())

    with pytest.raises(ConnectionError):
        await Uncancelled(work.wait(), 0.01, abort, lambda: None)


async def test_what_ignores_that_is_cancelled(work: Work) -> None:
    work.seconds = 0.01

    with pytest.raises(TimeoutError):
        await work.shielded()
    assert work.steps == ["abort", "CancelledError"]


async def test_that_breaks_off_one_whose_task_is_cancelled_as_well(work: Work) -> None:
    work.seconds = 0.01
    task = asyncio.create_task(work.run())
    await turns()
    task.cancel()
    await asyncio.wait((task,))

    assert isinstance(task.exception(), TimeoutError)
    assert work.steps == ["abort", "CancelledError"]
