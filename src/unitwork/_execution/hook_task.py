"""Calls one hook in a task of its own, which can be left behind if it hangs."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from anyio import CapacityLimiter, to_thread

from .._concurrency.unread_error import retrieve_exception
from .plan import HookTimeoutError, Interrupted

__all__ = ["call_hook"]

log = logging.getLogger("unitwork")

_GRACE = 0.1  # seconds that a cancelled hook may take to clean up


class _Result(NamedTuple):
    value: Any
    error: BaseException | None


async def call_hook(call: Callable[[], Any], limit: float | None) -> None:
    """Call the hook; a plain function in a thread.

    Raises `HookTimeoutError` after *limit* seconds, `Interrupted` if the caller is
    cancelled, and what the hook raises. Before that the hook is cancelled, and left
    behind if it goes on.
    """
    hook = asyncio.create_task(_run(call))
    try:
        await asyncio.wait((hook,), timeout=limit)
    except asyncio.CancelledError:
        if hook.done():
            raise Interrupted(hook_ended=True) from _error_of(hook)
        await _stop(hook)
        raise Interrupted from None
    if not hook.done():
        await _stop(hook)
        raise HookTimeoutError
    error = _error_of(hook)
    if isinstance(error, GeneratorExit):  # which would close the plan
        raise RuntimeError("GeneratorExit was raised") from error
    hook.result()


def _error_of(hook: asyncio.Task[None]) -> BaseException | None:
    return asyncio.CancelledError() if hook.cancelled() else hook.exception()


async def _run(call: Callable[[], Any]) -> None:
    if inspect.iscoroutinefunction(call):
        await call()
        return
    # A limiter of its own: the framework's threads may all wait for this unit's locks.
    result = await to_thread.run_sync(
        _captured, call, limiter=CapacityLimiter(1), abandon_on_cancel=True
    )
    if result.error is not None:
        raise result.error
    if inspect.isawaitable(result.value):
        await result.value


def _captured(call: Callable[[], Any]) -> _Result:
    """Call it; no future of a thread could raise each kind of exception."""
    try:
        return _Result(call(), None)
    except BaseException as error:
        return _Result(None, error)


async def _stop(hook: asyncio.Task[None]) -> None:
    """Cancel *hook*, also if this task is cancelled again meanwhile."""
    hook.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait((hook,), timeout=_GRACE)
    if not hook.done():
        log.error("a hook goes on although it was cancelled: %r", hook)
    hook.add_done_callback(retrieve_exception)
