"""The threads in which sync sessions end."""

from __future__ import annotations

import asyncio
import os
import threading
from contextvars import ContextVar

import pytest

from unitwork._threads import in_thread

pytestmark = pytest.mark.anyio

variable = ContextVar("variable", default=0)


def add(number: int, *, more: int = 0) -> int:
    return variable.get() + number + more


async def test_calls_in_a_thread_and_in_the_context_around() -> None:
    variable.set(1)

    assert await in_thread(add, 2, more=3) == 6
    assert await in_thread(threading.get_ident) != threading.get_ident()


async def test_what_is_set_in_the_thread_stays_there() -> None:
    await in_thread(variable.set, 5)

    assert variable.get() == 0


async def test_an_error_comes_back() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_nobody_waits_for_the_thread_of_another() -> None:
    together = threading.Barrier(100)

    places = await asyncio.gather(*(in_thread(together.wait, 30) for _ in range(100)))

    assert sorted(places) == list(range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_fork_has_threads_of_its_own() -> None:
    await in_thread(add, 1)  # so that there is one, which a fork does not have

    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        os._exit(asyncio.run(asyncio.wait_for(told(), 30)))
    _, status = await asyncio.to_thread(os.waitpid, child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


async def told() -> int:
    return await in_thread(add, 0)
