"""A request, run once more from its beginning: as if it had never run before."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from contextvars import Context, copy_context
from copy import deepcopy
from typing import Any

from ._concurrency.deadline import Deadline
from .retry import RetryPolicy, Tries

__all__ = ["Attempts"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_UNSET = object()


class Attempts:
    """What the attempts at one request have in common."""

    __slots__ = ("_origin", "deadline", "failed", "receive", "tries")

    def __init__(self, scope: Message, receive: Receive) -> None:
        self._origin = _Origin(scope)
        self.receive = Ahead(receive)
        self.tries: Tries | None = None
        self.deadline: Deadline | None = None
        self.failed: tuple[Exception, Receive] | None = None
        """What the latest has failed with, and the body for the one that follows."""

    def next(self, policy: RetryPolicy, attempts: int) -> bool:
        """Count one more, if there may be one."""
        if self.tries is None:
            deadline = math.inf if self.deadline is None else self.deadline.until
            self.tries = Tries(policy, attempts, deadline)
        return self.tries.next()

    def announce(self, error: Exception) -> float:
        """Tell whoever wants to know; give the seconds to wait until the next one."""
        assert self.tries is not None
        return self.tries.announce(error, self._origin.before["path"])

    @property
    def scope(self) -> Message:
        """That of the latest attempt, as it has left it."""
        return self._origin.scope

    def begin(self) -> Message:
        """Give the scope as it was."""
        return self._origin.restored()

    def run(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Run *work* with the context variables as they were."""
        return _Within(self._origin.context.copy(), work)


class _Origin:
    """Where the first attempt began, for the others to begin there, too."""

    __slots__ = ("_flags", "_headers", "_session", "before", "context", "scope")

    def __init__(self, scope: Message) -> None:
        self.scope = scope
        self.before = dict(scope)
        self.context = copy_context()
        # These two are changed where they are, and not replaced.
        self._headers = list(scope.get("headers", ()))
        session = scope.get("session")
        self._session = deepcopy(dict(session)) if isinstance(session, dict) else None
        self._flags = dict(getattr(session, "__dict__", {}))

    def restored(self) -> Message:
        """The scope as it was. The same object: outer middleware looks into it."""
        self.scope.clear()
        self.scope.update(self.before, headers=list(self._headers))
        if self._session is not None:
            session = self.before["session"]
            dict.clear(session)  # Starlette's own would note that it was changed
            dict.update(session, deepcopy(self._session))
            if hasattr(session, "__dict__"):
                vars(session).clear()
                vars(session).update(self._flags)
        return self.scope


class Ahead:
    """A `receive` whose next messages can be waited for before they are asked for.

    So that a client that leaves between two attempts is noticed.
    """

    __slots__ = ("_ahead", "_left", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ahead: deque[asyncio.Task[Message]] = deque()
        """The rest of the body, if it is one message, and what comes after it."""
        self._left = False

    async def __call__(self) -> Message:
        while self._ahead:
            task = self._ahead[0]
            # Whoever gives up must not take the message with it: others wait, too.
            message = await asyncio.shield(task)
            if self._ahead and self._ahead[0] is task:
                self._ahead.popleft()
                return message
        return await self._ask()

    async def ends_within(self, seconds: float) -> bool:
        """Wait; say whether the client has left by then."""
        until = time.monotonic() + seconds
        while not self._left and self._may_look_further():
            task = asyncio.create_task(self._ask())
            self._ahead.append(task)
            await asyncio.sleep(0)  # let it start: there may be an answer at once
            left = max(0.0, until - time.monotonic())
            await asyncio.wait((task,), timeout=left)
        if not self._left:
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        return self._left

    def _may_look_further(self) -> bool:
        """Whether the next message is not waited for yet, and not a part of a body."""
        if not self._ahead:
            return True
        last = self._ahead[-1]
        return last.done() and not last.result().get("more_body")

    async def _ask(self) -> Message:
        message = await self._receive()
        self._left = self._left or message["type"] == "http.disconnect"
        return message

    async def close(self) -> None:
        """Ask for nothing any more."""
        for task in self._ahead:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))


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
        try:
            while True:
                waits_for = context.run(step, value)
                try:
                    value = yield waits_for
                    step = work.send
                except BaseException as error:
                    step, value = work.throw, error
        except StopIteration:
            return
        finally:
            for variable, value in context.items():
                if variable.get(_UNSET) is not value:
                    variable.set(value)
