"""How an endpoint comes by its session: it is injected, opened, or fetched."""

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from ..workloads import Endpoint, Work, Wrap


def injected(given: Any) -> Wrap:
    """By the framework, from *given*, which is `Depends(...)`."""

    def wrap(work: Work) -> Endpoint:
        async def endpoint(session: Any = given) -> Any:
            return await work(session)

        def endpoint_in_thread(session: Any = given) -> Any:
            return work(session)

        return endpoint if inspect.iscoroutinefunction(work) else endpoint_in_thread

    return wrap


def opened(open_session: Callable[[], AbstractContextManager[Any]]) -> Wrap:
    """By the endpoint itself, with *open_session*, in a `with`."""

    def wrap(work: Work) -> Endpoint:
        def endpoint() -> Any:
            with open_session() as session:
                return work(session)

        return endpoint

    return wrap


def async_opened(open_session: Callable[[], AbstractAsyncContextManager[Any]]) -> Wrap:
    """By the endpoint itself, with *open_session*, in an `async with`."""

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            async with open_session() as session:
                return await work(session)

        return endpoint

    return wrap


def fetched(fetch: Callable[[], Any]) -> Wrap:
    """From something global, with *fetch*."""

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            return await work(fetch())

        def endpoint_in_thread() -> Any:
            return work(fetch())

        return endpoint if inspect.iscoroutinefunction(work) else endpoint_in_thread

    return wrap
