"""`call_hook()`: a hook in a task of its own, and a cancellation of its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from unitwork._execution.hook_task import call_hook
from unitwork._execution.plan import Interrupted

pytestmark = pytest.mark.anyio


async def cancelled(then: Callable[[], Coroutine[Any, Any, object]]) -> Interrupted:
    """Cancel the caller from inside a hook that does *then*; give what it gets."""

    async def hook() -> None:
        caller.cancel()
        await then()

    async def call() -> Interrupted:
        with pytest.raises(Interrupted) as caught:
            await call_hook(hook, None)
        return caught.value

    caller = asyncio.create_task(call())
    return await caller


async def nothing() -> None: ...


async def fail() -> None:
    raise LookupError


async def test_one_that_goes_on_is_cancelled() -> None:
    assert not (await cancelled(asyncio.Event().wait)).hook_ended


async def test_one_that_ends_in_that_very_turn_was_not_interrupted() -> None:
    interruption = await cancelled(nothing)

    assert (interruption.hook_ended, interruption.__cause__) == (True, None)


async def test_what_it_raises_in_that_very_turn_is_the_cause() -> None:
    interruption = await cancelled(fail)

    assert interruption.hook_ended
    assert isinstance(interruption.__cause__, LookupError)
