"""The body of a request, recorded while it is read: it may be read again."""

from __future__ import annotations

import math
from collections import deque

from ..errors import UsageError
from .types import Message, Receive

__all__ = ["NOT_KEPT", "Recording", "is_kept", "record", "replayed"]


class Recording(list[Message]):
    """The messages of one body that have been read, in order: two or more."""

    size: float = 0


NOT_KEPT = Recording()
"""A body that has been read by a request which is not run again."""
NOT_KEPT.size = math.inf
_MESSAGES, _BYTES = 1000, 100
"""How many messages are kept of any body, and of a larger one with that much each."""


def record(
    body: Message | Recording | None, message: Message, limit: int
) -> Message | Recording:
    """Add *message* to the recorded *body*: mostly it is the only one.

    Nothing is kept of a body with more than *limit* bytes, or in too many messages.
    """
    if body is None:
        return message
    content = message.get("body", b"")
    if not content and message.get("more_body"):
        return body  # says nothing
    if not isinstance(body, Recording):
        first = body
        body = Recording((first,))
        body.size = len(first.get("body", b""))
    body.size += len(content)
    if len(body) > _MESSAGES + limit // _BYTES:
        body.size = math.inf
    if body.size > limit:
        body.clear()
    else:
        body.append(message)
    return body


def is_kept(body: Message | Recording | None, limit: int) -> bool:
    """Whether all that was read of a *body* can be read again."""
    if body is None or isinstance(body, Recording):
        return body is None or body.size <= limit
    return len(body.get("body", b"")) <= limit


def replayed(body: Message | Recording | None, receive: Receive, limit: int) -> Receive:
    """A `receive` that gives the recorded *body* first, and then goes on."""
    recorded = Recording()
    if isinstance(body, Recording):
        recorded = body
    elif body is not None:
        recorded.size = len(body.get("body", b""))
        recorded.append(body)
    if isinstance(receive, _Replay) and not receive.left:
        receive = receive.receive
    return _Replay(recorded, receive, limit)


class _Replay:
    """A `receive` that begins again with what was *recorded*."""

    def __init__(self, recorded: Recording, receive: Receive, limit: int) -> None:
        self.left = deque(recorded)
        self.receive = receive
        self._limit = limit
        self._is_kept = recorded.size <= limit

    async def __call__(self) -> Message:
        if not self._is_kept:
            raise UsageError(
                "the body of this request has been read and was not kept: it is not to "
                f"be run again, or its body has more than {self._limit} bytes "
                "(RetryPolicy's body_limit); an exception handler can't read it again"
            )
        if self.left:
            return {**self.left.popleft()}
        return await self.receive()
