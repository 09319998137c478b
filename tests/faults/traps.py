"""Faults on a line: where they strike, and what they do there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from support.proxy import Line

Place = Literal["bytes", "BEGIN", "statement", "COMMIT", "ROLLBACK"]
Side = Literal["request", "reply"]
Act = Literal["cut", "reset", "hold", "kill"]
Kill = Callable[[int], Awaitable[None]]
Struck = Callable[[], object]

# A simple query of PostgreSQL's, perhaps after a check, or a COM_QUERY of MySQL's.
_MARK = re.compile(
    rb"(?s)(?:Q.{4}(?:SELECT 1 / [^;]*; )?|.{3}\x00\x03)(BEGIN|COMMIT|ROLLBACK)"
)


@dataclass(frozen=True)
class Fault:
    """One fault. *number*: after so many bytes, or at that statement (from 0).

    Lost is the request, of which *keep* bytes still get through (but never all), or its
    reply. A kill strikes before the request goes on, or *seconds* after.
    """

    place: Place
    side: Side
    act: Act
    number: int = 0
    seconds: float | None = None
    keep: int = 0

    def __str__(self) -> str:
        return (
            f"{self.act} at {self.place} {self.side} "
            f"(number {self.number}, keep {self.keep}, {self.seconds} s)"
        )


class FaultTrap:
    """Lies in wait on a line for the moment of its fault; strikes once."""

    def __init__(self, fault: Fault, struck: Struck, kill: Kill | None = None) -> None:
        self._fault = fault
        self._struck = struck
        self._kill = kill
        self.backend = 0
        """The number by which the server knows the connection."""
        self._left = fault.number
        self._awaits_reply = False
        self._killing: asyncio.Task[None] | None = None

    @property
    def is_killing(self) -> bool:
        return self._killing is not None and not self._killing.done()

    def sent(self, line: Line, data: bytes) -> bytes:
        fault = self._fault
        if fault.place == "bytes":
            return self._count(line, data, "request")
        if self._awaits_reply or not self._is_there(data):
            return data
        if fault.side == "reply":
            self._awaits_reply = True
            return data
        self._strike(line, line.send_on, data, fault.keep % len(data))
        return b""

    def received(self, line: Line, data: bytes) -> bytes:
        if self._fault.place == "bytes":
            return self._count(line, data, "reply")
        if not self._awaits_reply:
            return data
        self._strike(line, line.give_back, data, 0)
        return b""

    def _is_there(self, data: bytes) -> bool:
        mark = _MARK.match(data)
        if self._fault.place != "statement":
            return mark is not None and mark[1].decode() == self._fault.place
        if mark is not None:
            return False
        self._left -= 1
        return self._left < 0

    def _count(self, line: Line, data: bytes, side: Side) -> bytes:
        if side != self._fault.side:
            return data
        if self._left >= len(data):
            self._left -= len(data)
            return data
        on = line.send_on if side == "request" else line.give_back
        self._strike(line, on, data, self._left)
        return b""

    def _strike(
        self, line: Line, on: Callable[[bytes], None], data: bytes, keep: int
    ) -> None:
        line.trap = None
        self._struck()
        act = self._fault.act
        if act == "hold":
            on(data[:keep])
            line.hold(self._fault.seconds)
            on(data[keep:])
        elif act == "kill":
            killing = self._kill_and_send_on(line, on, data)
            self._killing = asyncio.create_task(killing)
        else:
            on(data[:keep])
            getattr(line, act)()

    async def _kill_and_send_on(
        self, line: Line, on: Callable[[bytes], None], data: bytes
    ) -> None:
        assert self._kill is not None
        if self._fault.seconds is not None:
            on(data)
            await asyncio.sleep(self._fault.seconds)
            await self._kill(self.backend)
        else:
            line.hold()
            on(data)
            await self._kill(self.backend)
            line.release()
