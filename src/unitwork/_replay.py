"""A request, run once more from its beginning: as if it had never run before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple

from ._deadline import Deadline
from .retry import RetryPolicy, Tries

__all__ = ["Attempts", "Origin"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_UNSET = object()


class Attempts:
    """What the attempts at one request have in common."""

    __slots__ = ("deadline", "receive", "tries")

    def __init__(self, receive: Receive) -> None:
        self.receive = Ahead(receive)
        self.tries: Tries | None = None
        self.deadline: Deadline | None = None

    def next(self, policy: RetryPolicy, attempts: int) -> bool:
        """Count one more, if there may be one."""
        if self.tries is None:
            self.tries = Tries(policy, attempts)
        return self.tries.next()

    def announce(self, error: Exception, path: str) -> float:
        """Tell whoever wants to know; give the seconds to wait until the next one."""
        return self.tries.announce(error, path) if self.tries is not None else 0.0


class Origin(NamedTuple):
    """Where an attempt began, for the next one to begin there, too."""

    scope: Message
    before: Message
    """What was in the scope."""
    context: Context

    def restored(self) -> Message:
        """The scope as it was. The same object: outer middleware looks into it."""
        self.scope.clear()
        self.scope.update(self.before)
        self.scope["headers"] = list(self.before.get("headers", ()))
        return self.scope

    def run(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run *work* with the context variables as they were."""
        return _Within(self.context.copy(), work)


class Ahead:
    """A `receive` of which the next message can be waited for before it is asked for.

    So that a client that leaves between two attempts is noticed.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._next: asyncio.Task[Message] | None = None

    async def __call__(self) -> Message:
        if self._next is None:
            return await self._receive()
        message = await self._next
        self._next = None
        return message

    async def ends_within(self, seconds: float) -> bool:
        """Wait; say whether the client has left by then."""
        if self._next is None:
            self._next = asyncio.create_task(self._ask())
            await asyncio.sleep(0)  # let it start: there may be an answer at once
        if self._next.done():
            await asyncio.sleep(seconds)
        else:
            await asyncio.wait((self._next,), timeout=seconds)
        return self._next.done() and self._next.result()["type"] == "http.disconnect"

    async def _ask(self) -> Message:
        return await self._receive()

    async def close(self) -> None:
        """Ask for nothing any more."""
        if self._next is not None and not self._next.done():
            self._next.cancel()
            with suppress(asyncio.CancelledError):
                await self._next


class _Within:
    """Run a coroutine in *context*, in this very task, and take over what it sets.

    A task of its own would get a context, too, but neither the cancel scopes of anyio
    around this one nor its cancellations.
    """

    def __init__(self, context: Context, work: Coroutine[Any, Any, None]) -> None:
        self._context = context
        self._work = work

    def __await__(self) -> Generator[Any, Any, None]:
        context, work = self._context, self._work
        step: Callable[..., Any] = work.send
        value: Any = None
        while True:
            try:
                waits_for = context.run(step, value)
            except StopIteration:
                break
            try:
                value = yield waits_for
                step = work.send
            except BaseException as error:
                step, value = work.throw, error
        for variable, value in context.items():
            if variable.get(_UNSET) is not value:
                variable.set(value)
