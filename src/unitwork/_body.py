"""The body of a request, kept while it is read: somebody may have to read it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .errors import UsageError

__all__ = ["LIMIT", "Recording", "record", "replayed"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LIMIT = 2**20
"""Bytes; of a larger body nothing is kept."""


class Recording(list[Message]):
    """Two messages or more of one body, in order, as far as they have been read."""

    size = 0


def record(body: Message | Recording | None, message: Message) -> Message | Recording:
    """Add *message* to what was kept of a *body*: mostly it is all that there is."""
    if body is None:
        return message
    if not isinstance(body, Recording):
        first = body
        body = Recording()
        record(body, first)
    body.size += len(message.get("body", b""))
    if body.size > LIMIT:
        body.clear()
    else:
        body.append(message)
    return body


def replayed(body: Message | Recording | None, receive: Receive) -> Receive:
    """Give what was kept of a *body*, and after that what *receive* gives."""
    recorded = Recording()
    if isinstance(body, Recording):
        recorded = body
    elif body is not None:
        record(recorded, body)
    again = iter(recorded)

    async def receive_again() -> Message:
        if recorded.size > LIMIT:
            raise UsageError(
                f"the body of this request, of more than {LIMIT} bytes, has been read "
                "and was not kept: an exception handler can't read it again"
            )
        for message in again:
            return {**message}
        return await receive()

    return receive_again
