"""What a leak consists of: connections that are held, and tasks that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import FrameType
from typing import Any

from sqlalchemy import Engine

from unitwork._engine.pool_events import loans_of

__all__ = ["describe"]

_MOST = 30
_PARTS = ("cr", "gi", "ag")


def describe(engine: Engine) -> str:
    """The loans of *engine* that are in use, and where each task of the loop waits."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    lines = [*_loans(engine), *(f"{task!r}\n{_waits(task)}" for task in tasks)]
    return "\n".join(lines[:_MOST])


def _loans(engine: Engine) -> Iterator[str]:
    for loan in loans_of(engine):
        if loan.hold is None and loan.holder is None:
            continue
        where = loan.hold and (loan.hold.call_site, loan.hold.statement)
        in_flight = loan.statements_in_flight
        yield f"held: {loan.state}, {in_flight} in flight, {where}, {list(loan.texts)}"


def _waits(task: asyncio.Task[Any]) -> str:
    where: Any = task.get_coro()
    lines: list[str] = []
    while where is not None:
        frame: FrameType | None = None
        waits_for: Any = None
        for part in _PARTS:
            frame = frame or getattr(where, f"{part}_frame", None)
            waits_for = waits_for or getattr(where, f"{part}_await", None)
        if frame is not None:
            lines.append(f"    {frame.f_code.co_filename}:{frame.f_lineno}")
        else:
            lines.append(f"    {where!r}")
        where = waits_for
    return "\n".join(lines)
