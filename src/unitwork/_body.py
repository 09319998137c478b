"""The body of a request, kept while it is read: somebody may have to read it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .errors import UsageError

__all__ = ["LIMIT", "Recording"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

LIMIT = 2**20
"""Bytes; of a larger body nothing is kept."""


class Recording:
    """The messages of one body, in order, as far as they have been read."""

    __slots__ = ("_messages", "_size")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._size = 0

    @property
    def too_large(self) -> bool:
        return self._size > LIMIT

    def add(self, message: Message) -> None:
        self._size += len(message.get("body", b""))
        if self.too_large:
            self._messages.clear()
        else:
            self._messages.append(message)

    def then(self, receive: Receive) -> Receive:
        """Give what was recorded, and after that what *receive* gives."""
        again = iter(tuple(self._messages))

        async def receive_again() -> Message:
            if self.too_large:
                raise UsageError(
                    f"the body of this request, of more than {LIMIT} bytes, has been "
                    "read and was not kept: an exception handler can't read it again"
                )
            for message in again:
                return dict(message)
            return await receive()

        return receive_again
