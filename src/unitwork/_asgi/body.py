"""The body of a request, recorded while it is read: it may be read again."""

from __future__ import annotations

from collections import deque

from ..errors import UsageError
from .types import Message, Receive

__all__ = ["Recording", "is_kept", "record", "replayed"]


class Recording(list[Message]):
    """The messages of one body that have been read, in order: two or more."""

    size = 0


def record(
    body: Message | Recording | None, message: Message, limit: int
) -> Message | Recording:
    """Add *message* to the recorded *body*: mostly it is the only one.

    Of a body with more than *limit* bytes nothing is kept.
    """
    if body is None:
        return message
    if not isinstance(body, Recording):
        first = body
        body = Recording()
        record(body, first, limit)
    body.size += len(message.get("body", b""))
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
        record(recorded, body, limit)
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
                f"the body of this request, of more than {self._limit} bytes, has been "
                "read and was not kept (RetryPolicy's body_limit): an exception "
                "handler can't read it again"
            )
        if self.left:
            return {**self.left.popleft()}
        return await self.receive()
