"""The event loop to which the connection of a sandbox belongs: its home.

Drivers tie a connection to one event loop, and a test has several: its own, that of
Starlette's TestClient, that of a server. So each call is made at home, from wherever it
comes; the home of a sandbox that is entered outside of coroutines is a thread of the
test kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context
from threading import Lock, Thread
from typing import Any, TypeVar

from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from .._concurrency.fork import renew_after_fork
from .failure import SandboxError

__all__ = ["Home", "home_of_ours"]

T = TypeVar("T")

_BLOCKED = (
    "the event loop in which this sandbox was entered does not run, and the connection "
    "belongs to it: it waits for what needs it, as when an async test uses TestClient. "
    "Use httpx.AsyncClient with ASGITransport there, or enter the sandbox by `with`"
)


class Home:
    """One event loop, in which calls are made from any thread or event loop."""

    __slots__ = ("is_ours", "loop", "timeout")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout: float, *, is_ours: bool
    ) -> None:
        self.loop = loop
        self.timeout = timeout
        self.is_ours = is_ours

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call *function*, which does I/O, and return its result."""
        try:
            running: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self.loop:
            return function(*args)
        if not self.is_ours and not self.loop.is_running():
            raise SandboxError(_BLOCKED)
        made = Future[T]()
        started = Future[None]()
        coroutine = _make(function, args, started, made)
        # A transport keeps the context in which it was made, and the test's with it.
        self.loop.call_soon_threadsafe(self._start, coroutine, made, context=Context())
        if in_greenlet():
            return await_only(self._wait_async(started, made))
        self._wait(started, made)
        return made.result()

    def _start(self, coroutine: Coroutine[Any, Any, None], made: Future[Any]) -> None:
        task = self.loop.create_task(coroutine)

        def cancel(_: Future[Any]) -> None:
            if made.cancelled():
                self.loop.call_soon_threadsafe(task.cancel)

        made.add_done_callback(cancel)

    async def _wait_async(self, started: Future[None], made: Future[T]) -> T:
        if not self.is_ours:
            try:
                async with asyncio.timeout(self.timeout):
                    await asyncio.wrap_future(started)
            except TimeoutError:
                raise SandboxError(_BLOCKED) from None
        return await asyncio.wrap_future(made)

    def _wait(self, started: Future[None], made: Future[Any]) -> None:
        if not self.is_ours:
            try:
                started.result(self.timeout)
            except TimeoutError:
                raise SandboxError(_BLOCKED) from None


async def _make(
    function: Callable[..., T],
    args: tuple[object, ...],
    started: Future[None],
    made: Future[T],
) -> None:
    if not started.cancelled():
        started.set_result(None)
    try:
        result = await greenlet_spawn(function, *args)
    except BaseException as error:
        if not made.cancelled():
            made.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        if not made.cancelled():
            made.set_result(result)


class _LoopThread:
    """The thread of the test kit, made at first use; a fork makes its own."""

    def __init__(self) -> None:
        self._lock = renew_after_fork(Lock())
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._loop = loop = asyncio.new_event_loop()
                self._thread = Thread(
                    target=loop.run_forever, name="unitwork-sandbox", daemon=True
                )
                self._thread.start()
            assert self._loop is not None
            return self._loop


_ours = _LoopThread()


def home_of_ours(timeout: float) -> Home:
    """That of the thread of the test kit, which lasts as long as the process."""
    return Home(_ours.loop, timeout, is_ours=True)
