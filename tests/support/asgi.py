"""A raw ASGI client that sees each message at the moment it reaches the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
ASGIApp = Callable[..., Awaitable[None]]


@dataclass
class Reply:
    """What the server was handed, in order, and how the application ended."""

    messages: list[Message] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def starts(self) -> list[Message]:
        return [m for m in self.messages if m["type"] == "http.response.start"]

    @property
    def status(self) -> int | None:
        return self.starts[0]["status"] if self.starts else None

    @property
    def body(self) -> bytes:
        bodies = (m for m in self.messages if m["type"] == "http.response.body")
        return b"".join(m.get("body", b"") for m in bodies)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def complete(self) -> bool:
        """Exactly one valid response: one start, one last chunk, nothing after it."""
        kinds = [m["type"] for m in self.messages]
        last = [
            i
            for i, m in enumerate(self.messages)
            if m["type"] == "http.response.body" and not m.get("more_body", False)
        ]
        return (
            kinds.count("http.response.start") == 1
            and last == [len(kinds) - 1]
            and kinds[0] == "http.response.start"
        )


def http_scope(method: str, path: str, **extra: Any) -> dict[str, Any]:
    raw, _, query = path.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": raw,
        "raw_path": raw.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
        **extra,
    }


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    on_message: Callable[[Message], Awaitable[None] | None] | None = None,
    gone: asyncio.Event | None = None,
    **scope: Any,
) -> Reply:
    """Make one request. *on_message* is called as each message reaches the server.

    The client leaves when *gone* is set. Errors of the application are in the reply,
    but a cancellation of the caller goes on.
    """
    reply = Reply()
    sent = False
    gone = gone or asyncio.Event()

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if on_message is not None:
            result = on_message(message)
            if result is not None:
                await result
        reply.messages.append(message)

    try:
        await app(http_scope(method, path, **scope), receive, send)
    except Exception as error:
        reply.error = error
    return reply
