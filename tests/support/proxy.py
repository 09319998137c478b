"""A TCP proxy before the database; it cuts, resets, holds or swallows what goes by."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol, Self

from sqlalchemy import make_url

from support.through import through

_PORTS = {"postgresql": 5432, "mysql": 3306}


class Trap(Protocol):
    """Looks at what passes a line; gives what shall go on, or deals with it itself."""

    def sent(self, line: Line, data: bytes) -> bytes: ...

    def received(self, line: Line, data: bytes) -> bytes: ...


class Proxy:
    """`async with Proxy(url) as proxy:` forwards from `proxy.url` to *url*."""

    def __init__(self, url: str) -> None:
        self._target = make_url(through(url))
        self._server: asyncio.Server | None = None
        self._marks: dict[bytes, Callable[[], object]] = {}
        self._ended = asyncio.Event()
        self.lines: dict[int, Line] = {}
        self.used_ports: set[int] = set()
        """Those of all its connections to the database, also of those that ended."""
        """By the port of the client."""
        self.swallowing = False
        self.refusing = 0
        """How many of those who connect next are turned away."""
        self.for_newcomers: list[Trap] = []
        """One for each connection to come, the last one first."""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        while self.lines:
            self._ended.clear()
            await self._ended.wait()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return self._target.set(host="127.0.0.1", port=port).render_as_string(False)

    @property
    def address(self) -> tuple[str, int]:
        """Where the database is."""
        port = self._target.port or _PORTS[self._target.get_backend_name()]
        return self._target.host or "127.0.0.1", port

    def lead_to(self, url: str) -> None:
        """Send new connections to another server."""
        self._target = make_url(url)

    @property
    def ports(self) -> set[int]:
        """Those of its connections to the database."""
        return {line.server.port for line in self.lines.values()}

    @property
    def holding(self) -> bool:
        """Whether something is held that has still to go through."""
        return any(line.held is not None for line in self.lines.values())

    def swallow(self) -> None:
        """From now on nothing gets through, either way, without an error."""
        self.swallowing = True

    def forward(self) -> None:
        """New connections get through again; those that lost something are cut."""
        self.swallowing = False
        self.cut()

    def cut(self) -> None:
        """End every connection in good order, as a server that stops."""
        for line in list(self.lines.values()):
            line.cut()

    def reset(self) -> None:
        """End every connection with a TCP reset."""
        for line in list(self.lines.values()):
            line.reset()

    def when(self, sent: bytes, act: Callable[[], object]) -> None:
        """Call *act*, once, just before the client's *sent* would go through."""
        self._marks[sent] = act

    def see(self, data: bytes) -> None:
        for mark in [mark for mark in self._marks if mark in data]:
            self._marks.pop(mark)()

    def end(self, line: Line) -> None:
        """Forget *line*."""
        self.lines.pop(line.port, None)
        self._ended.set()

    def _accept(self) -> asyncio.Protocol:
        return Line(self).client


class Line:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client = _End(self, self._client_is_there)
        self.server = _End(self, self._server_is_there)
        self.port = 0
        self.trap: Trap | None = None
        self.held: list[tuple[_End, bytes | None]] | None = None
        """What waits to go on to an end; `None` for its close."""
        self._connecting: asyncio.Task[Any] | None = None

    def cut(self) -> None:
        """End it in good order; what was sent on before still arrives."""
        self.held = None
        self.client.close()
        self.server.close()
        if self._connecting is not None:
            self._connecting.cancel()

    def reset(self) -> None:
        """End it with a TCP reset."""
        self.client.reset()
        self.cut()

    def hold(self, seconds: float | None = None) -> None:
        """Keep back what comes, both ways, until the time is over or `release()`.

        Nothing gets lost, as on a network that heals: it arrives even if its sender
        has left meanwhile.
        """
        if self.held is None:
            self.held = []
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self.release)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for end, data in held:
            self._pass(end, data)

    def send_on(self, data: bytes) -> None:
        """Hand *data* of the client to the server, or hold it."""
        self._pass(self.server, data)

    def give_back(self, data: bytes) -> None:
        """Hand *data* of the server to the client, or hold it."""
        self._pass(self.client, data)

    def carry(self, end: _End, data: bytes) -> None:
        if end is self.client:
            if self.proxy._marks:
                self.proxy.see(data)
            if self.trap is not None:
                data = self.trap.sent(self, data)
            other = self.server
        else:
            if self.trap is not None:
                data = self.trap.received(self, data)
            other = self.client
        if data and not self.proxy.swallowing:
            self._pass(other, data)

    def lost(self, end: _End) -> None:
        if not self.proxy.swallowing:
            self._pass(self.client if end is self.server else self.server, None)
        if self.client.lost and self.server.lost:
            self.proxy.end(self)

    def _pass(self, end: _End, data: bytes | None) -> None:
        if self.held is not None:
            self.held.append((end, data))
        elif data is None:
            end.close()
        else:
            end.write(data)

    def _server_is_there(self) -> None:
        self.proxy.used_ports.add(self.server.port)

    def _client_is_there(self) -> None:
        self.port = self.client.peer
        self.proxy.lines[self.port] = self
        if self.proxy.refusing:
            self.proxy.refusing -= 1
            self.server.lost = True
            self.reset()
            return
        if self.proxy.for_newcomers:
            self.trap = self.proxy.for_newcomers.pop()
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: self.server, *self.proxy.address)
        self._connecting = asyncio.create_task(connecting)
        self._connecting.add_done_callback(self._connected)

    def _connected(self, connecting: asyncio.Task[Any]) -> None:
        self._connecting = None
        if connecting.cancelled() or connecting.exception() is not None:
            self.server.lost = True
            self.client.reset()
            if self.client.lost:
                self.proxy.end(self)


class _End(asyncio.Protocol):
    """One of the two sockets of a line."""

    def __init__(self, line: Line, made: Callable[[], None] = lambda: None) -> None:
        self._line = line
        self._made = made
        self._transport: Any = None
        self._early: list[bytes] = []
        self._closing = False
        self.lost = False

    @property
    def peer(self) -> int:
        return int(self._transport.get_extra_info("peername")[1])

    @property
    def port(self) -> int:
        """Ours; 0 as long as there is none."""
        if self._transport is None:
            return 0
        return int(self._transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.writelines(self._early)
        self._early.clear()
        if self._closing:
            self._transport.close()
        self._made()

    def data_received(self, data: bytes) -> None:
        self._line.carry(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._line.lost(self)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(OSError):  # it has ended
            line: socket.socket = self._transport.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()


class RoundTrips:
    """Counts how often the client speaks after the server has."""

    def __init__(self) -> None:
        self.count = 0
        self._answered = True

    def sent(self, line: Line, data: bytes) -> bytes:
        self.count += self._answered
        self._answered = False
        return data

    def received(self, line: Line, data: bytes) -> bytes:
        self._answered = True
        return data
