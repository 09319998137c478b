"""Which connection of an engine is which line of the proxy, and what it meets there."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from anyio import to_thread
from sqlalchemy import Engine, event

from faults.traps import Fault, FaultTrap, Struck
from support.proxy import Proxy


class _Fate(NamedTuple):
    """What the connections of one piece of work meet."""

    traps: list[FaultTrap]
    struck: Struck


_UNHARMED = _Fate([], lambda: None)
_fate: ContextVar[_Fate] = ContextVar("fate")


class TrappedLines:
    """Lets the connections of *engine* through *proxy* meet faults."""

    def __init__(
        self, engine: Engine, proxy: Proxy, kill: Callable[[int], object]
    ) -> None:
        self._proxy = proxy
        self._kill = kill
        self._last: dict[int, FaultTrap] = {}
        """By the number of the connection that has met it."""
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)

    def meet(self, *faults: Fault, struck: Struck = lambda: None) -> None:
        """The next work of this task meets the *faults*, on its first connections."""
        kill = self._kill_in_thread
        traps = [FaultTrap(fault, struck, kill) for fault in reversed(faults)]
        _fate.set(_Fate(traps, struck))

    def meet_newcomer(self, fault: Fault, struck: Struck = lambda: None) -> None:
        """The next connection meets *fault*."""
        self._proxy.for_newcomers.append(FaultTrap(fault, struck))

    async def _kill_in_thread(self, backend: int) -> None:
        await to_thread.run_sync(self._kill, backend)

    def _connected(self, dbapi_connection: Any, record: Any) -> None:
        record.info["backend"] = backend_of(record.driver_connection)
        record.info["port"] = port_of(record.driver_connection)

    def _checked_out(self, dbapi_connection: Any, record: Any, fairy: object) -> None:
        line = self._proxy.lines.get(record.info["port"])
        backend, (traps, struck) = record.info["backend"], _fate.get(_UNHARMED)
        last = self._last.get(backend)
        if last is not None and last.is_killing:  # it was too late for its own work
            struck()
        elif line is not None and traps:
            self._last[backend] = line.trap = trap = traps.pop()
            trap.backend = backend

    def _checked_in(self, dbapi_connection: Any, record: Any) -> None:
        line = self._proxy.lines.get(record.info.get("port"))
        if line is not None:
            line.trap = None


def port_of(driver_connection: Any) -> int:
    """The local port of a connection."""
    transport = getattr(driver_connection, "_transport", None)  # asyncpg, asyncmy
    if transport is not None:
        return int(transport.get_extra_info("sockname")[1])
    line = getattr(driver_connection, "_sock", driver_connection)  # pymysql, psycopg
    with socket.socket(fileno=os.dup(line.fileno())) as ours:
        return int(ours.getsockname()[1])


def backend_of(driver_connection: Any) -> int:
    """The number by which the server knows it."""
    if hasattr(driver_connection, "get_server_pid"):  # asyncpg
        return int(driver_connection.get_server_pid())
    if hasattr(driver_connection, "thread_id"):  # pymysql, asyncmy
        return int(driver_connection.thread_id())
    return int(driver_connection.info.backend_pid)  # psycopg
