"""The order of calls that ends a unit, and the two drivers that run it.

A plan is a generator that yields steps. It knows neither threads nor awaits: `run`
makes each step where it stands, `arun` in the session's greenlet or in a thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import (
    Callable,
    Coroutine,
    Generator,
    Sequence,
)
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from sqlalchemy.exc import IllegalStateChangeError
from sqlalchemy.orm import Session

from . import _session
from ._alarm import alarm
from ._ending import Outcome
from ._hooks import Hooks
from ._session import Lease
from ._verify import look
from .errors import CommitUnknownError, UsageError

__all__ = [
    "HAD_COMMITTED",
    "Pause",
    "Plan",
    "Step",
    "arun",
    "finish",
    "run",
    "uninterrupted",
]

log = logging.getLogger("unitwork")

T = TypeVar("T")

HAD_COMMITTED = "databases had committed"
_PAUSE = 0.005  # seconds between two looks at a session that is in use


class Step(NamedTuple):
    """One call: with the session of *lease*, or a hook if that is `None`.

    *limit*, in seconds, bounds the call: its connection is broken off then.
    """

    call: Callable[..., Any]
    lease: Lease | None = None
    limit: float | None = None


class Pause(NamedTuple):
    """Some time in which nothing is done."""

    seconds: float


Plan = Generator[Step | Pause, Any, T]

Settled = Callable[[Outcome, BaseException | None], None]
"""Told what became of the work, and which error made COMMIT fail."""


def finish(
    leases: Callable[[], Sequence[Lease]],
    hooks: Hooks | None,
    *,
    commit: bool,
    doomed: Callable[[], bool] = lambda: False,
    settled: Settled = lambda outcome, error: None,
) -> Plan[bool]:
    """Commit or roll back whatever the *leases* have open, then call the *hooks*.

    Says whether it was committed: a `before_commit` hook may have *doomed* the unit.
    Connections are back in the pool, and *settled* has been told, before the first
    `on_commit` hook runs: one that opens a session of its own must find a connection.
    """
    committed = False
    pending: Sequence[Lease] = ()
    done: list[Lease] = []
    try:
        if commit and not doomed():
            pending = leases()
            for lease in pending:
                if lease.suspect:
                    yield Step(_session.verify, lease)
            if hooks is not None and hooks.before_commit:
                for hook in hooks.take_before_commit():
                    yield Step(hook.call)
                pending = leases()  # the hooks may have begun more
        if commit and not doomed():
            if len(pending) > 1:  # let what can fail do so before anything is committed
                for lease in pending:
                    yield Step(Session.flush, lease)
            for lease in pending:
                yield from _commit(lease)
                done.append(lease)
            committed = True
    except BaseException as error:
        if done:
            error.add_note(f"{len(done)} of {len(pending)} {HAD_COMMITTED}")
        unknown = any(lease.in_doubt(error) for lease in pending)
        outcome = Outcome.UNKNOWN if unknown else Outcome.ROLLED_BACK
        try:
            yield from _roll_back(leases())
        finally:
            settled(outcome, error)
        yield from _call_hooks(hooks, outcome)
        raise
    outcome = Outcome.COMMITTED if committed else Outcome.ROLLED_BACK
    try:
        if not committed:
            pending = leases()
            yield from _roll_back(pending)
    finally:
        settled(outcome if pending else Outcome.EMPTY, None)
    yield from _call_hooks(hooks, outcome)
    return committed


def _commit(lease: Lease) -> Plan[None]:
    """Commit. If nobody tells how that went, ask the database itself."""
    try:
        yield Step(_session.commit, lease, lease.settings.commit_timeout)
    except Exception as error:
        if not lease.in_doubt(error):
            raise
        committed = yield from _settle(lease)
        if committed is None:
            raise CommitUnknownError(
                "the connection was lost while COMMIT was under way: the work may be "
                "stored or not; look before trying again"
            ) from error
        if not committed:
            raise
        log.warning("COMMIT failed, but the database has committed", exc_info=error)
        yield Step(_session.accept, lease)


def _settle(lease: Lease) -> Plan[bool | None]:
    """Ask until the database knows what became of a COMMIT, or the time is over."""
    doubts, limit = lease.doubts, lease.settings.verify_timeout
    until = time.monotonic() + limit
    pause = _PAUSE
    committed: bool | None = None
    while doubts and committed is None and (left := until - time.monotonic()) > 0:
        once = min(left, limit / 4)
        with suppress(TimeoutError):
            committed = yield Step(
                partial(look, doubts, lease.is_async, once), lease, once / 2
            )
        if committed is None:
            pause = min(2 * pause, 1.0)
            yield Pause(pause)
    if doubts and committed is not None:
        lease.doubts = None  # no doubt any more
    return committed


def _roll_back(leases: Sequence[Lease]) -> Plan[None]:
    for lease in leases:
        rollback = Step(_session.rollback, lease, lease.patience)
        try:
            yield rollback
        except Exception as error:
            _complain(lease, "a connection could not be rolled back", error)
            lease.discard()
            try:
                yield rollback  # its connection is gone; now for the session itself
            except Exception as again:
                _complain(lease, "a session could not be closed", again)


def _complain(lease: Lease, what: str, error: Exception) -> None:
    if not lease.over:  # its own task has come to an end meanwhile, and was first
        log.warning(what, exc_info=error)


def _call_hooks(hooks: Hooks | None, outcome: Outcome) -> Plan[None]:
    """What is done is done: a hook that fails is logged, and the others still run."""
    for hook in hooks.take(outcome) if hooks else ():
        try:
            yield Step(hook.call)
        except (Exception, asyncio.CancelledError) as error:
            log.error("%s failed after the unit had ended", hook.name, exc_info=error)


def run(plan: Plan[T]) -> T:
    """Make each step at once, in this thread."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            result = _make(step)
        except BaseException as caught:
            error = caught


async def arun(plan: Plan[T]) -> T:
    """Make each step where it belongs, and await it."""
    result: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = plan.throw(error) if error is not None else plan.send(result)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # T, by the plan's type
        result = error = None
        try:
            result = await _amake(step)
        except BaseException as caught:
            error = caught


def _make(step: Step | Pause) -> Any:
    if isinstance(step, Pause):
        return time.sleep(step.seconds)
    if step.lease is None:
        return step.call()
    patience = _Patience(step.lease)
    while True:
        if not step.lease.busy:
            with suppress(IllegalStateChangeError):
                if step.limit is None:
                    return step.call(step.lease.sync_session)
                with alarm(step.limit, step.lease.discard):
                    return step.call(step.lease.sync_session)
        patience.check()
        time.sleep(_PAUSE)


async def _amake(step: Step | Pause) -> Any:
    if isinstance(step, Pause):
        return await asyncio.sleep(step.seconds)
    if step.lease is None:
        return await _call_hook(step.call)
    patience: _Patience | None = None
    while True:
        if not step.lease.busy:
            try:
                if step.limit is None:
                    return await _in_place(step.call, step.lease)
                with _Within(step.limit, step.lease):
                    return await _in_place(step.call, step.lease)
            except IllegalStateChangeError:
                pass  # another task uses the session just now
        patience = patience or _Patience(step.lease)
        patience.check()
        await asyncio.sleep(_PAUSE)


class _Within:
    """Breaks the connection off when the time is over.

    To cancel a driver is the last resort: it may take its time to ask the server to
    stop, and a thread would not notice. Mostly it is over before, so this has to cost
    less than `asyncio.timeout()` does.
    """

    __slots__ = ("_before", "_expired", "_lease", "_limit", "_loop", "_task", "_timer")

    def __init__(self, limit: float, lease: Lease) -> None:
        self._limit = limit
        self._lease = lease
        self._expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._limit, self._break_off)

    def _break_off(self) -> None:
        self._lease.discard()
        self._timer = self._loop.call_later(self._limit, self._cancel)

    def _cancel(self) -> None:
        self._expired = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._timer.cancel()
        ours = self._expired and self._task.uncancel() <= self._before
        if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise TimeoutError


class _Patience:
    """With other tasks or threads that still use a session which is to end."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._until = time.monotonic() + lease.patience

    def check(self) -> None:
        """Once it has run out, break off what they are doing, and raise."""
        if time.monotonic() > self._until:
            self._lease.discard()
            raise UsageError(
                "another task or thread still used the session "
                f"{self._lease.patience:g} seconds after its unit of work had come to "
                "an end; await what you start, or give it a unit of its own: "
                "`async with db.transaction() as session:`"
            )


async def _in_place(call: Callable[..., Any], lease: Lease) -> Any:
    if lease.is_async:
        return await lease.session.run_sync(call)  # type: ignore[union-attr]  # is_async
    # A limiter of its own: the framework's threads may all wait for this connection.
    return await to_thread.run_sync(
        call, lease.sync_session, limiter=CapacityLimiter(1)
    )


async def _call_hook(call: Callable[[], Any]) -> None:
    if inspect.iscoroutinefunction(call):
        await call()
        return
    # A limiter of its own: the framework's threads may all wait for this unit's locks.
    result = await to_thread.run_sync(call, limiter=CapacityLimiter(1))
    if inspect.isawaitable(result):
        await result


async def uninterrupted(
    work: Coroutine[Any, Any, T], interruptible: Callable[[], bool] = lambda: False
) -> T:
    """Run *work* to its end in a task of its own, whatever becomes of this task.

    A cancellation, native or by an anyio scope, is delivered afterwards; also to the
    *work*, once, if it is *interruptible* when the cancellation comes.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError as cancelled:
        if not task.done() and interruptible():
            task.cancel()
        await _see_through(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a unit failed to end while it was cancelled", exc_info=error)
        raise cancelled


async def _see_through(task: asyncio.Task[Any]) -> None:
    """Wait for *task*, though this one is cancelled, and maybe more than once."""
    with CancelScope(shield=True):  # or the loop would spin in a cancelled anyio scope
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
