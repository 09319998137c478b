"""A TCP proxy before the database, that cuts, resets or swallows what goes through."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Self

from sqlalchemy import make_url


class Proxy:
    """`async with Proxy(url) as proxy:` forwards from `proxy.url` to *url*."""

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._lines: set[_Line] = set()
        self._server: asyncio.Server | None = None
        self._marks: dict[bytes, Callable[[], object]] = {}
        self.swallowing = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await asyncio.gather(*(line.ended.wait() for line in self._lines))

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target.set(host="127.0.0.1", port=port).render_as_string(False)

    def swallow(self) -> None:
        """From now on nothing gets through, either way, and nobody is told."""
        self.swallowing = True

    def forward(self) -> None:
        """New connections get through again; those that lost something are cut."""
        self.swallowing = False
        self.cut()

    def cut(self) -> None:
        """End every connection in good order, as a server that stops."""
        for line in self._lines:
            line.close()

    def reset(self) -> None:
        """End every connection with a TCP reset."""
        for line in self._lines:
            line.reset()

    def when(self, sent: bytes, act: Callable[[], object]) -> None:
        """Call *act*, once, just before the client's *sent* would go through."""
        self._marks[sent] = act

    def see(self, data: bytes) -> None:
        for mark in [mark for mark in self._marks if mark in data]:
            self._marks.pop(mark)()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = await asyncio.open_connection(
            self._target.host or "127.0.0.1", self._target.port or 5432
        )
        line = _Line(self, (reader, writer), target)
        self._lines.add(line)
        await line.run()
        self._lines.discard(line)


class _Line:
    """One connection through the proxy."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self.ended = asyncio.Event()

    async def run(self) -> None:
        try:
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(self._client[0], self._server[1])),
                    asyncio.create_task(self._pump(self._server[0], self._client[1])),
                ]
            )
        finally:
            self.close()
            self.ended.set()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if reader is self._client[0]:
                    self._proxy.see(data)
                if not self._proxy.swallowing:
                    writer.write(data)
                    await writer.drain()
        if not self._proxy.swallowing:
            self.close()

    def close(self) -> None:
        self._client[1].close()
        self._server[1].close()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        client: socket.socket = self._client[1].get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()
