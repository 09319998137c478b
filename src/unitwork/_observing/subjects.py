"""What events are about: a unit of work, a line of the application."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Literal, NamedTuple

__all__ = ["CallSite", "ConnectionUse", "UnitInfo", "UnitKind", "printable"]

UnitKind = Literal["request", "websocket", "block"]


@dataclass(slots=True, eq=False)
class UnitInfo:
    """Which unit of work an event is about. One object for each unit; read it only.

    *id* counts the units of the process. *kind* is `"request"`, `"websocket"` or
    `"block"`. *databases* are the names of those that it may use. *parent* is the *id*
    of the unit that encloses it, or of the request whose background task it runs in.
    *attempt* counts from 1. *method* and *path* are the request's, or empty; *route* is
    the template of its path, `None` until a framework has found it; it begins with the
    prefixes of mounted applications and included routers. *started_at* is by
    `time.time()`, *started* by `time.monotonic()`.

    .. versionadded:: 0.2
    """

    id: int
    kind: UnitKind
    databases: tuple[str, ...]
    parent: int | None
    attempt: int
    method: str
    path: str
    route: str | None
    started_at: float
    started: float

    @property
    def description(self) -> str:
        """What the unit is for: `"POST /items/{id}"`, `"a transaction() block"`."""
        if self.kind == "block":
            return "a transaction() block"
        return f"{self.method or 'WebSocket'} {self.route or printable(self.path)}"


class CallSite(NamedTuple):
    """A line of the application, as text: `"shop/orders.py:12 in pay()"`.

    .. versionadded:: 0.2
    """

    code: CodeType
    offset: int
    """The index of an instruction: cheaper than a line."""

    @property
    def line(self) -> int:
        """The number of the line."""
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if start <= self.offset < end and number is not None:
                line = number
        return line

    def __str__(self) -> str:
        file = self.code.co_filename.removeprefix(str(Path.cwd()) + os.sep)
        return f"{file}:{self.line} in {self.code.co_name}()"


class ConnectionUse(NamedTuple):
    """How long a unit has held connections, in seconds, all of them together.

    .. versionadded:: 0.2
    """

    connections: int = 0
    """How many times it has taken one."""
    held: float = 0.0
    idle: float = 0.0
    """Of that, idle in a transaction: between statements, or before the end."""
    longest_idle: float = 0.0
    pools: tuple[str, ...] = ()
    """The names of their pools, without repeats: a replica's is `default, replica 1`.

    Empty if the unit was not observed.
    """


def printable(path: str) -> str:
    """A path as text of one line: a client may send a line break, decoded by now."""
    return path if path.isprintable() else repr(path)[1:-1]
