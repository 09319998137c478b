"""The threads in which sync sessions end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from contextlib import suppress
from contextvars import ContextVar
from weakref import ReferenceType, ref

import pytest

from unitwork._concurrency import worker_threads
from unitwork._concurrency.worker_threads import idle_workers
from unitwork._concurrency.worker_threads import run_in_worker_thread as in_thread

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


async def test_an_error_lets_go_of_what_its_call_has_used() -> None:
    used: list[ReferenceType[object]] = []

    def fail() -> None:
        held = threading.Event()
        used.append(ref(held))
        raise LookupError

    gc.disable()
    try:
        with suppress(LookupError):
            await in_thread(fail)
        await in_thread(int)  # by the same thread, which is done with it by now
        assert used[0]() is None
    finally:
        gc.enable()


async def test_stop_iteration_comes_back_as_another_error() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await in_thread(lambda: next(iter(())))


async def test_what_finds_no_thread_is_never_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def add_one() -> None:
        with pytest.raises(RuntimeError, match="can't start"):
            in_thread(called.append, 1)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    called: list[int] = []
    held = threading.Event()
    busy = [in_thread(held.wait, 30) for _ in range(len(idle_workers) + 1)]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    await add_one()
    monkeypatch.undo()
    held.set()
    await asyncio.gather(*busy)
    await in_thread(int)

    assert called == []


async def test_a_thread_that_has_nothing_to_do_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_threads, "IDLE_TIMEOUT", 0.001)
    thread = await in_thread(threading.current_thread)

    await asyncio.to_thread(thread.join, 30)

    assert not thread.is_alive()
    assert await in_thread(int) == 0


def test_works_in_a_process_whose_main_thread_is_over() -> None:
    script = (
        "import asyncio, threading\n"
        "from unitwork._concurrency.worker_threads import run_in_worker_thread\n"
        "async def work():\n"
        "    while threading.main_thread().is_alive():\n"
        "        await asyncio.sleep(0.001)\n"
        "    print(await run_in_worker_thread(int))\n"
        "threading.Thread(target=lambda: asyncio.run(work())).start()\n"
    )

    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_fork_has_threads_of_its_own() -> None:
    await in_thread(add, 1)  # so that there is one, which a fork does not have

    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        os._exit(asyncio.run(asyncio.wait_for(work_in_thread(), 30)))
    _, status = await asyncio.to_thread(os.waitpid, child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


async def work_in_thread() -> int:
    return await in_thread(add, 0)
