"""Runs a request again from its beginning, in the state that it had then."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from copy import deepcopy
from typing import Any

from .types import Message, Receive, Scope

__all__ = ["InContext", "ReceiveAhead", "Snapshot"]

_UNSET = object()
_IMMUTABLE = {str, int, float, bool, type(None)}


class Snapshot:
    """A scope and the context variables, as they were before the application ran."""

    __slots__ = ("_context", "_flags", "_headers", "_session", "is_complete", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = dict(scope)
        # These two are changed where they are, and not replaced.
        self._headers = list(scope.get("headers", ()))
        self._session: dict[str, Any] | None = None
        self._flags: dict[str, Any] = {}
        self._context = copy_context()
        self.is_complete = "session" not in scope or self._keeps(scope["session"])
        """Whether all of it could be copied."""

    def _keeps(self, session: Any) -> bool:
        """Copy the contents of `scope["session"]`, and the flags that Starlette's has.

        It may hold what can't be copied.
        """
        self._flags = dict(getattr(session, "__dict__", {}))
        if isinstance(session, dict):
            try:
                self._session = _copied(session)
            except Exception:
                return False
        return True

    def restore(self, scope: Scope) -> None:
        """Make *scope* what it was. It stays the object that outer middleware knows."""
        scope.clear()
        scope.update(self.scope, headers=list(self._headers))
        if self._session is None:
            return
        session: Any = self.scope["session"]
        dict.clear(session)  # Starlette's own would note that it was changed
        dict.update(session, _copied(self._session))
        if hasattr(session, "__dict__"):
            vars(session).clear()
            vars(session).update(self._flags)

    def context(self) -> Context:
        return self._context.copy()


def _copied(session: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value if type(value) in _IMMUTABLE else deepcopy(value)
        for key, value in dict.items(
            session
        )  # Starlette's own methods mark it as accessed
    }


class ReceiveAhead:
    """A `receive` whose next messages can be waited for before they are requested.

    So that a client that leaves between two attempts is noticed.
    """

    __slots__ = ("_ahead", "_left", "_receive")

    def __init__(self, receive: Receive, *, client_has_left: bool) -> None:
        self._receive = receive
        self._ahead: deque[asyncio.Task[Message]] = deque()
        """The rest of the body, if it is one message, and what comes after it."""
        self._left = client_has_left

    async def __call__(self) -> Message:
        while self._ahead:
            task = self._ahead[0]
            # A task that gives up must not lose the message: others wait, too.
            message = await asyncio.shield(task)
            if self._ahead and self._ahead[0] is task:
                self._ahead.popleft()
                return message
        return await self._receive_one()

    async def ends_within(self, seconds: float) -> bool:
        """Wait; say whether the client has left by then."""
        until = time.monotonic() + seconds
        while not self._left and self._may_receive_ahead():
            task = asyncio.create_task(self._receive_one())
            self._ahead.append(task)
            await asyncio.sleep(0)  # let it start: there may be an answer at once
            left = max(0.0, until - time.monotonic())
            await asyncio.wait((task,), timeout=left)
        if not self._left:
            await asyncio.sleep(max(0.0, until - time.monotonic()))
        return self._left

    def _may_receive_ahead(self) -> bool:
        """Whether the next message is not waited for yet, and not a part of a body."""
        if not self._ahead:
            return True
        last = self._ahead[-1]
        return last.done() and not last.result().get("more_body")

    async def _receive_one(self) -> Message:
        message = await self._receive()
        self._left = self._left or message["type"] == "http.disconnect"
        return message

    async def close(self) -> None:
        """Receive nothing any more."""
        for task in self._ahead:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))


class InContext:
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
                awaited = context.run(step, value)
                try:
                    value = yield awaited
                    step = work.send
                except BaseException as error:
                    step, value = work.throw, error
        except StopIteration:
            return
        finally:
            for variable, value in context.items():
                if variable.get(_UNSET) is not value:
                    variable.set(value)
