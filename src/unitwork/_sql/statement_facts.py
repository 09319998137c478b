"""What can be known of a statement by its text alone, found once for each text. Pure.

Every statement of an application is looked at for all of this, and most of them are
the same few texts: one look-up has to do.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from .savepoint_text import SavepointCommand, savepoint_commands
from .session_statements import LONG, known_traces
from .sql_text import has_several_statements
from .transaction_control import may_replace
from .write_detection import text_known_to_write

__all__ = ["LONG", "StatementFacts", "facts_of", "known_facts"]

_ENDS_NOTHING = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")  # as most begin
_LONGEST = max(map(len, _ENDS_NOTHING))


class StatementFacts(NamedTuple):
    """What the text of a statement shows."""

    may_end_transaction: bool
    has_several_statements: bool
    may_leave_traces: bool
    """Whether it may leave session-level state behind."""
    writes: bool | None
    """Whether it obviously writes, if it is not one of SQLAlchemy's constructs.

    `False`: that is not known. `None`: it is `LONG`, and was not looked at.
    """
    savepoints: tuple[SavepointCommand, ...] = ()
    """What it does to savepoints, in this order."""
    may_replace: bool = False
    """Whether it may end its transaction and begin another one."""


def facts_of(dialect: str, text: str) -> StatementFacts:
    """What *text* shows. For one that is not `LONG`, `known_facts` is the same."""
    begins = text[:_LONGEST].upper()
    may_end = not begins.startswith(_ENDS_NOTHING) or ";" in text
    return StatementFacts(
        may_end,
        ";" in text and has_several_statements(text),
        len(text) > LONG or bool(known_traces(dialect, text)),
        None if len(text) > LONG else text_known_to_write(dialect, text),
        savepoint_commands(dialect, text) if may_end and len(text) <= LONG else (),
        may_end and may_replace(dialect, text),
    )


known_facts = lru_cache(maxsize=512)(facts_of)
