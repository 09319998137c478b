"""What is not to be interrupted, under cancellation of every kind."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from typing import Any

import anyio
import pytest

from unitwork._concurrency.shield import uninterrupted

pytestmark = pytest.mark.anyio


class Ending:
    """An ending that waits till it is let go, and notes how it went."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.done = False
        self.error = error

    async def __call__(self) -> str:
        self.begun.set()
        await self.go.wait()
        self.done = True
        if self.error is not None:
            raise self.error
        return "result"


async def test_what_is_not_interrupted_gives_its_result() -> None:
    ending = Ending()
    ending.go.set()

    assert await uninterrupted(ending()) == "result"


async def test_what_is_not_interrupted_raises_its_error() -> None:
    ending = Ending(LookupError())
    ending.go.set()

    with pytest.raises(LookupError):
        await uninterrupted(ending())


async def test_a_cancelled_task_ends_first() -> None:
    ending = Ending()
    task = asyncio.create_task(uninterrupted(ending()))
    await ending.begun.wait()

    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    ending.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ending.done


async def test_a_cancelled_scope_ends_first_and_is_not_missed() -> None:
    ending = Ending()
    after = False

    async def end() -> None:
        nonlocal after
        await uninterrupted(ending())
        await anyio.lowlevel.checkpoint()
        after = True

    async with anyio.create_task_group() as group:
        group.start_soon(end)
        await ending.begun.wait()
        group.cancel_scope.cancel()
        asyncio.get_running_loop().call_soon(ending.go.set)

    assert (ending.done, after) == (True, False)


async def test_an_error_that_a_cancellation_hides_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ending = Ending(LookupError("hidden"))
    task = asyncio.create_task(uninterrupted(ending()))
    await ending.begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    ending.go.set()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert "hidden" in caplog.text


async def test_a_work_that_never_waits_gives_its_result_at_once() -> None:
    async def work() -> str:
        return "result"

    assert await uninterrupted(work()) == "result"


async def test_a_work_that_never_waits_raises_its_error() -> None:
    async def work() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await uninterrupted(work())


async def test_a_cancellation_reaches_what_may_be_interrupted() -> None:
    ending = Ending()
    task = asyncio.create_task(uninterrupted(ending(), lambda: 0.0))
    await ending.begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not ending.done


async def test_a_later_cancellation_may_have_no_patience() -> None:
    ending, patience = Ending(), iter([10.0, 0.0])
    task = asyncio.create_task(uninterrupted(ending(), lambda: next(patience)))
    await ending.begun.wait()

    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not ending.done


async def test_patience_ends_whatever_it_would_be_by_then() -> None:
    ending, patience = Ending(), iter([0.01])
    task = asyncio.create_task(uninterrupted(ending(), lambda: next(patience)))
    await ending.begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not ending.done


@pytest.mark.parametrize("after_the_end", [False, True])
async def test_a_cancellation_at_the_last_moment_is_delivered(
    after_the_end: bool,
) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        if after_the_end:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            task.cancel()

    task = asyncio.create_task(uninterrupted(work()))

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_factory_is_asked_for_the_task() -> None:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[object]] = []

    def make(
        loop: asyncio.AbstractEventLoop, work: Any, **options: Any
    ) -> asyncio.Task[object]:
        made.append(asyncio.Task(work, loop=loop, **options))
        return made[-1]

    loop.set_task_factory(make)
    try:
        await uninterrupted(asyncio.sleep(0))
    finally:
        loop.set_task_factory(None)

    assert len(made) == 1


async def test_waits_for_what_a_task_factory_has_put_around_the_work() -> None:
    loop = asyncio.get_running_loop()
    over: list[str] = []

    async def instrumented(work: Any) -> Any:
        result = await work
        await asyncio.sleep(0)
        over.append("over")
        return result

    loop.set_task_factory(
        lambda loop, work, **options: asyncio.Task(
            instrumented(work), loop=loop, **options
        )
    )
    try:
        result = await uninterrupted(asyncio.sleep(0, "result"))
    finally:
        loop.set_task_factory(None)

    assert (result, over) == ("result", ["over"])


async def test_runs_in_a_task_of_its_own_and_in_the_context_that_it_is_given() -> None:
    variable = ContextVar("variable", default=0)
    context = copy_context()
    context.run(variable.set, 1)

    async def work() -> tuple[object, int]:
        await asyncio.sleep(0)
        return asyncio.current_task(), variable.get()

    task, value = await uninterrupted(work(), context=context)

    assert task is not asyncio.current_task()
    assert (value, variable.get()) == (1, 0)
