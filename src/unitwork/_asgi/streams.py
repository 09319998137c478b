"""Responses that keep a transaction open while their body is sent."""

from __future__ import annotations

from collections.abc import Sequence

from .._execution.plan import Plan, Step
from .._session import operations
from .._session.unit_session import UnitSession
from .._unit import endings
from .._unit.unit import Unit

__all__ = ["STREAMS_WRITES", "streams_what_it_wrote"]

STREAMS_WRITES = (
    "the response starts while a transaction that has written is kept open, by "
    "stream=True or by a server-side cursor: it could be committed only after the "
    "response has started. Stream from a unit of its own: "
    "`async with db.transaction() as session:`"
)


async def streams_what_it_wrote(unit: Unit) -> bool:
    """Keep what `stream=True` requires; return whether what is kept open has written.

    The database is asked, if it can tell: only where a transaction is kept open.
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
    return bool(streaming) and await endings.run_ending(unit, _find_writes(streaming))


def _find_writes(streaming: Sequence[UnitSession]) -> Plan[bool]:
    for session in streaming:
        limit = session.settings.end_timeout
        if (yield Step(operations.find_writes, session, limit)):
            return True
    return False
