"""Requests by hand: an ASGI server that costs next to nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[..., Awaitable[None]]
State = dict[str, Any]

REQUEST = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"test")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
}


class Exchange:
    """One request, and what came back."""

    __slots__ = ("_asked", "gone", "messages")

    def __init__(self) -> None:
        self._asked = False
        self.gone: asyncio.Event | None = None
        """Set when the client leaves; it never does if there is none."""
        self.messages: list[Message] = []

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        self.gone = self.gone or asyncio.Event()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int:
        for message in self.messages:
            if message["type"] == "http.response.start":
                return int(message["status"])
        return 0

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)


def http(method: str, path: str, state: State) -> dict[str, Any]:
    """The scope of a request."""
    return {
        **REQUEST,
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "state": state.copy(),
    }


@asynccontextmanager
async def running(app: App) -> AsyncIterator[State]:
    """Start *app* up, give the state that it has made, and shut it down."""
    state: State = {}
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": REQUEST["asgi"], "state": state}
    life = asyncio.ensure_future(app(scope, inbox.get, outbox.put))
    try:
        for phase in ("startup", "shutdown"):
            await inbox.put({"type": f"lifespan.{phase}"})
            answer = asyncio.ensure_future(outbox.get())
            await asyncio.wait([answer, life], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() or not answer.result()["type"].endswith("complete"):
                raise RuntimeError(f"lifespan.{phase} failed: {answer}")
            if phase == "startup":
                yield state
        await life
    finally:
        life.cancel()
