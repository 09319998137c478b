"""Callables of the application that unitwork calls without `await`.

The coroutine that such a call of an `async def` returns counts as true, whatever it
would have returned: so it is refused, when it is given or at the latest when it is
called.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from .errors import UsageError

__all__ = ["check_callable", "is_async_callable", "returned_plainly"]


def is_async_callable(given: Any) -> bool:
    """Whether calling *given* returns a coroutine or a generator, as far as known.

    Looks through partials, methods, and objects with a `__call__()`.
    """
    while isinstance(given, functools.partial | staticmethod | classmethod):
        given = given.func if isinstance(given, functools.partial) else given.__func__
    if isinstance(given, type):  # calling it makes an object
        return False
    method = inspect.getattr_static(type(given), "__call__", None)
    return _is_deferred(given) or _is_deferred(method)


def _is_deferred(function: Any) -> bool:
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    )


def check_callable(name: str, given: object) -> None:
    """Raise `UsageError` unless *given*, the argument *name*, is a plain function."""
    if not callable(given):
        raise UsageError(f"{name} must be callable, this is {given!r}")
    if is_async_callable(given):
        raise UsageError(
            f"{name} is a coroutine function, {given!r}, and nothing awaits it; it "
            "must be a plain function"
        )


def returned_plainly(name: str, result: object, *kinds: type | None) -> None:
    """Raise `UsageError` unless *result*, which *name* has returned, is one of *kinds*.

    Without *kinds* it may be anything that needs no `await`.
    """
    awaitable = inspect.isawaitable(result)
    if not awaitable and (
        not kinds
        or any(result is k if k is None else isinstance(result, k) for k in kinds)
    ):
        return
    if inspect.iscoroutine(result):
        result.close()
    wanted = " or ".join("None" if k is None else k.__name__ for k in kinds)
    raise UsageError(
        f"{name} has returned {result!r}; it must be a plain function"
        + (f" that returns {wanted}" if kinds else "")
    )
