"""`@transactional`: the options of the transaction of one endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import aclosing
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, TypeVar, Unpack, cast

from ._unit.context import report_endpoint
from .errors import UsageError
from .options import (
    MARK,
    EndpointMark,
    RouteOptions,
    TransactionOptions,
    mark_of,
    route_retries,
)

__all__ = ["transactional"]

F = TypeVar("F", bound=Callable[..., Any] | type)

_NO_OPTIONS = (
    "@transactional was given no options: write them in parentheses, such as "
    "@transactional(read_only=True). Without any leave it out: each request is a "
    "transaction already"
)


def transactional(
    endpoint: None = None, /, **options: Unpack[RouteOptions]
) -> Callable[[F], F]:
    """Set the options of the transaction of an endpoint: see `TransactionOptions`.

    For a function, an `HTTPEndpoint` class or one of its methods. Outside of requests
    it changes nothing. Write it below the decorator that makes the route. Raises
    `UsageError` as `TransactionOptions` does.

    .. versionadded:: 0.1
    """
    if endpoint is not None:
        raise UsageError(_NO_OPTIONS)
    given = TransactionOptions(**options)
    if (given.attempts or 1) > 1:
        route_retries.by_endpoints = True

    def decorate(endpoint: F) -> F:
        if not callable(endpoint):
            raise UsageError(
                f"@transactional goes above a function or class; this is {endpoint!r}"
            )
        before = mark_of(endpoint)
        if before.reported_by is endpoint:  # decorated twice
            before.options = before.options | given
            return endpoint
        mark = EndpointMark(before.options | given)
        marked: Any = endpoint
        if isinstance(endpoint, FunctionType):
            marked = mark.reported_by = _reporting(endpoint, mark)
        elif isinstance(endpoint, type):
            _report_from_init(endpoint, mark)
        setattr(marked, MARK, mark)
        return cast("F", marked)

    return decorate


def _reporting(endpoint: FunctionType, mark: EndpointMark) -> FunctionType:
    """A function of the same kind that reports its *mark* when it is called."""
    report = partial(report_endpoint, mark)
    wrapper = _wrapper_of(endpoint, report)
    # Frameworks evaluate annotations in the globals of the function.
    copied = FunctionType(
        wrapper.__code__, endpoint.__globals__, closure=wrapper.__closure__
    )
    return cast("FunctionType", update_wrapper(copied, endpoint))


def _wrapper_of(
    endpoint: Callable[..., Any], report: Callable[[], None]
) -> FunctionType:
    """It may use no global name: it gets those of *endpoint*."""
    closing = aclosing

    async def coroutine(*args: Any, **kwargs: Any) -> Any:
        report()
        return await endpoint(*args, **kwargs)

    async def async_generator(*args: Any, **kwargs: Any) -> Any:
        report()
        async with closing(endpoint(*args, **kwargs)) as items:
            async for item in items:
                yield item

    def generator(*args: Any, **kwargs: Any) -> Any:
        report()
        return (yield from endpoint(*args, **kwargs))

    def function(*args: Any, **kwargs: Any) -> Any:
        report()
        return endpoint(*args, **kwargs)

    if inspect.iscoroutinefunction(endpoint):
        return cast("FunctionType", coroutine)
    if inspect.isasyncgenfunction(endpoint):
        return cast("FunctionType", async_generator)
    if inspect.isgeneratorfunction(endpoint):
        return cast("FunctionType", generator)
    return cast("FunctionType", function)


def _report_from_init(endpoint: type, mark: EndpointMark) -> None:
    """Let a class report its *mark* when it is called: an `HTTPEndpoint` is."""
    init: Any = endpoint.__init__  # type: ignore[misc]  # the class, and no instance

    def __init__(self: object, *args: Any, **kwargs: Any) -> None:
        report_endpoint(mark)
        init(self, *args, **kwargs)

    setattr(endpoint, "__init__", update_wrapper(__init__, init))  # noqa: B010
