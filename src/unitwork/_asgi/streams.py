"""Responses that are sent while a transaction is open."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from types import CodeType, FrameType
from typing import Any

from .._execution.plan import Plan, Step
from .._session import operations
from .._session.unit_session import UnitSession
from .._unit.context import innermost
from .._unit.running import run_ending
from .._unit.unit import Unit

__all__ = [
    "SENT_INSIDE",
    "STREAMS_WRITES",
    "failure_of_body",
    "is_inside_writing_block",
    "streams_what_it_wrote",
]

SENT_INSIDE = (
    "the response is sent inside a transaction() block that has written: it would be "
    "committed after that, when no failure can be reported any more. Send the response "
    "after the block (of a dependency with yield: write Depends(..., "
    'scope="function"), FastAPI 0.121), or let the block join the unit of the request: '
    'db.transaction(nested="join")'
)

STREAMS_WRITES = (
    "the response starts while a transaction that has written is kept open, by "
    "stream=True or by a server-side cursor: it could be committed only after the "
    "response has started. Stream from a unit of its own: `db.transaction()`"
)


def failure_of_body() -> Exception | None:
    """The error that has ended the body of the response, where that is hidden.

    A `BaseHTTPMiddleware` that is called here sends the last chunk first, as if the
    body was whole, and raises the error afterwards.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code is _base_middleware():
            return _error_in(frame)
        frame = frame.f_back
    return None


async def is_inside_writing_block(unit: Unit) -> bool:
    """Whether the caller is in a block, with a unit of its own, that has written.

    Of the blocks inside *unit*. Queries the database, as `streams_what_it_wrote()`.
    """
    for block in _blocks_around(unit):
        sessions = [each for each in block.sessions if each.has_work]
        if any(session.may_have_written for session in sessions):
            return True
        if bool(sessions) and await run_ending(block, _find_writes(sessions)):
            return True
    return False


def _blocks_around(unit: Unit) -> list[Unit]:
    around = innermost()
    units = [] if around is None else list(around.outwards())
    return units[: units.index(unit)] if unit in units else []


async def streams_what_it_wrote(unit: Unit) -> bool:
    """Keep what `stream=True` requires; return whether what is kept open has written.

    Queries the database, if it keeps that; only where a transaction is kept open.
    """
    keeps_all = unit.options.stream
    streaming = []
    for session in unit.sessions:
        if keeps_all:
            session.kept_for_stream = session.in_transaction
        if session.is_streaming:
            if session.may_have_written:
                return True
            streaming.append(session)
    return bool(streaming) and await run_ending(unit, _find_writes(streaming))


def _find_writes(streaming: Sequence[UnitSession]) -> Plan[bool]:
    for session in streaming:
        limit = session.settings.end_timeout
        if (yield Step(operations.find_writes, session, limit)):
            return True
    return False


def _base_middleware() -> CodeType | None:
    module = sys.modules.get("starlette.middleware.base")
    found = getattr(module, "BaseHTTPMiddleware", None)
    return None if found is None else found.__call__.__code__


def _error_in(frame: FrameType) -> Exception | None:
    """What the application in this middleware, or in one inside it, has raised."""
    names = frame.f_locals
    error: Exception | None = names.get("app_exc")
    if error is not None:
        return error
    group = names.get("task_group")
    sets = [x for x in vars(group).values() if isinstance(x, set)] if group else []
    for task in set[Any]().union(*sets):
        awaited = task.get_coro()
        while (inner := getattr(awaited, "cr_frame", None)) is not None:
            if inner.f_code is frame.f_code:
                return _error_in(inner)
            awaited = awaited.cr_await
    return None
