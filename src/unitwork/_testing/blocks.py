"""Context managers of the test kit, which report that they were not entered."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from .._sandbox.unentered_blocks import report_unentered

__all__ = ["Block", "block"]

P = ParamSpec("P")
T = TypeVar("T")


def block(function: Callable[P, Iterator[T]]) -> Callable[P, Block[T]]:
    """Make a generator *function* one that returns a `Block`; as `contextmanager`."""
    make = contextmanager(function)

    @wraps(function)
    def begin(*args: P.args, **options: P.kwargs) -> Block[T]:
        return Block(f"{function.__name__}()", partial(make, *args, **options))

    return begin


class Block(Generic[T]):
    """One block of a test, by `with`, also in `async` code, or as a decorator.

    A call without either would do nothing: it fails the test in its sandbox, and warns
    outside of any.
    """

    def __init__(self, call: str, make: Callable[[], AbstractContextManager[T]]):
        self._call = call
        self._make = make
        self._is_used = False
        self._entered: list[AbstractContextManager[T]] = []

    def __enter__(self) -> T:
        self._is_used = True
        entered = self._make()
        result = entered.__enter__()
        self._entered.append(entered)
        return result

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return self._entered.pop().__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Return *function* with a block around each call."""
        self._is_used = True
        make = self._make
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def within_async(*args: P.args, **options: P.kwargs) -> Any:
                with make():
                    return await function(*args, **options)

            return within_async

        @wraps(function)
        def within(*args: P.args, **options: P.kwargs) -> Any:
            with make():
                return function(*args, **options)

        return within

    def __del__(self) -> None:
        if not self._is_used:
            report_unentered(self._call)
