"""A unit that fails after another one of the same request has committed its part."""

from __future__ import annotations

from collections.abc import Sequence

from .._transaction.lost_work import partial_commit
from ..errors import PartialCommitError
from ..outcome import Outcome
from .unit import Unit

__all__ = ["stored_by", "with_stored"]


def stored_by(unit: Unit) -> tuple[str, ...]:
    """The databases in which a *unit* that has settled may have written."""
    stored = unit.outcome is Outcome.COMMITTED and unit.sessions.may_have_written
    return tuple(session.name for session in unit.sessions) if stored else ()


def with_stored(error: Exception, unit: Unit, stored: Sequence[str]) -> Exception:
    """*error*, with which *unit* ends; or that databases have *stored* a part."""
    if not stored or isinstance(error, PartialCommitError):
        return error
    names = [session.name for session in unit.sessions]
    unknown = names if unit.outcome is Outcome.UNKNOWN else []
    rolled_back = [] if unknown else names
    partial = partial_commit(stored, rolled_back=rolled_back, unknown=unknown)
    partial.__cause__ = error
    return partial
