"""The event loop to which the connection of a sandbox belongs, and the way into it.

Drivers tie a connection to one event loop, and a test has several: its own, that of
Starlette's TestClient, that of a server. So each call is made in the loop of the
connection, from any other one. A sandbox that is entered outside of coroutines has the
loop of a thread of the test kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import Context
from threading import Lock, Thread
from typing import Any, TypeVar

from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from .._concurrency.fork import renew_after_fork
from .failure import SandboxError

__all__ = ["Portal", "own_portal"]

T = TypeVar("T")

_BLOCKED = (
    "the event loop in which this sandbox was entered does not run, and the connection "
    "belongs to it: it waits for what needs it, as when an async test uses TestClient. "
    "Use httpx.AsyncClient with ASGITransport there, or enter the sandbox by `with`"
)


class Portal:
    """One event loop, in which calls are made from any thread or event loop."""

    __slots__ = ("_is_own", "_timeout", "loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout: float, *, is_own: bool = False
    ) -> None:
        self.loop = loop
        self._timeout = timeout
        self._is_own = is_own
        """Whether it is that of the test kit's thread, which always runs."""

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call *function*, which does I/O, and return its result.

        Raises `SandboxError` if the loop does not get to it within the time limit.
        """
        if _running_loop() is self.loop:
            return function(*args)
        if not self._is_own and not self.loop.is_running():
            raise SandboxError(_BLOCKED)
        if self._is_own and in_greenlet():
            return await_only(self._call_from_loop(function, args))
        started = None if self._is_own else Future[None]()
        done = Future[T]()
        coroutine = _perform(function, args, started, done)
        # A transport keeps the context in which it was made, and the test's with it.
        self.loop.call_soon_threadsafe(self._start, coroutine, done, context=Context())
        if in_greenlet():
            return await_only(self._wait_async(started, done))
        if started is not None:
            with _blocked_at_timeout():
                started.result(self._timeout)
        return done.result()

    async def _call_from_loop(
        self, function: Callable[..., T], args: tuple[object, ...]
    ) -> T:
        """Make the call in the loop of the kit's thread, which always runs.

        Without the futures of threads, which take as long again.
        """
        here = asyncio.get_running_loop()
        answer: asyncio.Future[T] = here.create_future()
        tasks: list[asyncio.Task[None]] = []

        def start() -> None:
            coroutine = _answer(function, args, here, answer)
            tasks.append(self.loop.create_task(coroutine))

        def cancel() -> None:
            for task in tasks:
                task.cancel()

        self.loop.call_soon_threadsafe(start, context=Context())
        try:
            return await answer
        except asyncio.CancelledError:
            self.loop.call_soon_threadsafe(cancel)
            raise

    def _start(self, coroutine: Coroutine[Any, Any, None], done: Future[Any]) -> None:
        task = self.loop.create_task(coroutine)

        def cancel(_: Future[Any]) -> None:
            if done.cancelled():
                self.loop.call_soon_threadsafe(task.cancel)

        done.add_done_callback(cancel)

    async def _wait_async(self, started: Future[None] | None, done: Future[T]) -> T:
        if started is not None:
            with _blocked_at_timeout():
                async with asyncio.timeout(self._timeout):
                    await asyncio.wrap_future(started)
        return await asyncio.wrap_future(done)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@contextmanager
def _blocked_at_timeout() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise SandboxError(_BLOCKED) from None


async def _perform(
    function: Callable[..., T],
    args: tuple[object, ...],
    started: Future[None] | None,
    done: Future[T],
) -> None:
    if started is not None and not started.cancelled():
        started.set_result(None)
    try:
        result = await greenlet_spawn(function, *args)
    except BaseException as error:
        if not done.cancelled():
            done.set_exception(error)
        if not isinstance(error, Exception):
            raise
    else:
        if not done.cancelled():
            done.set_result(result)


async def _answer(
    function: Callable[..., T],
    args: tuple[object, ...],
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[T],
) -> None:
    """Call *function*; give what it returns, or raises, to *answer* in its *loop*."""
    result: Any = None
    error: BaseException | None = None
    try:
        result = await greenlet_spawn(function, *args)
    except BaseException as raised:
        error = raised
        if not isinstance(raised, Exception):
            raise
    finally:
        with suppress(RuntimeError):  # its loop is closed: nothing waits for it
            loop.call_soon_threadsafe(_give, answer, result, error)
        del error


def _give(
    answer: asyncio.Future[Any], result: object, error: BaseException | None
) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


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


_own = _LoopThread()


def own_portal(timeout: float) -> Portal:
    """That of the test kit's thread, which lasts as long as the process."""
    return Portal(_own.loop, timeout, is_own=True)
