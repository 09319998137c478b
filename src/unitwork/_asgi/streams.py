"""Responses that keep a transaction open while their body is sent."""

from __future__ import annotations

from .._unit.unit import Unit

__all__ = ["STREAMS_WRITES", "streams_what_it_wrote"]

STREAMS_WRITES = (
    "the response starts while a transaction that has written is kept open, by "
    "stream=True or by a server-side cursor: it could be committed only after the "
    "response has started. Stream from a unit of its own: "
    "`async with db.transaction() as session:`"
)


def streams_what_it_wrote(unit: Unit) -> bool:
    """Keep what `stream=True` asks for; say whether what is kept open has written."""
    keeps_all = unit.options.stream
    for session in unit.sessions:
        if keeps_all:
            session.kept_for_stream = session.in_transaction
        if session.is_streaming and session.may_have_written:
            return True
    return False
