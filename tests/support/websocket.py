"""A raw ASGI WebSocket client that sees each message as it reaches the server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from support.asgi import ASGIApp, Message, http_scope


class Socket:
    """`async with Socket(app, "/path") as socket:` connects, and leaves at the end."""

    def __init__(
        self,
        app: ASGIApp,
        path: str,
        *,
        on_message: Callable[[Message], object] = lambda message: None,
        expect: str = "websocket.accept",
    ) -> None:
        scope = http_scope("GET", path, type="websocket", scheme="ws", subprotocols=[])
        scope["extensions"] = {"websocket.http.response": {}}
        del scope["method"]
        self._app = app
        self._scope = scope
        self._on_message = on_message
        self._expect = expect
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._to_client: asyncio.Queue[Message] = asyncio.Queue()
        self._listening = asyncio.Event()
        self.error: BaseException | None = None
        """What the application raised, if it did."""

    async def __aenter__(self) -> Self:
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._app(self._scope, self._give, self._take))
        assert (await self.receive())["type"] == self._expect
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await self.ended()

    async def ended(self) -> None:
        """Wait until the application has."""
        async with asyncio.timeout(10):
            await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self.error = self._task.exception()

    def send(self, text: str) -> None:
        self._listening.clear()
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    async def receive(self) -> Message:
        async with asyncio.timeout(10):
            return await self._to_client.get()

    async def ask(self, text: str) -> Any:
        """Send *text* and wait for the answer."""
        self.send(text)
        return (await self.receive()).get("text")

    async def listening(self) -> None:
        """Wait until the application waits for the next message."""
        async with asyncio.timeout(10):
            await self._listening.wait()

    def cancel(self) -> None:
        self._task.cancel()

    async def _give(self) -> Message:
        if self._to_app.empty():
            self._listening.set()
        return await self._to_app.get()

    async def _take(self, message: Message) -> None:
        self._on_message(message)
        self._to_client.put_nowait(message)
