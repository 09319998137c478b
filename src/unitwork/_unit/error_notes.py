"""Adds to an error that leaves a unit what it does not say: a note, for its reader."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy.exc import SQLAlchemyError, TimeoutError

from .._engine.address import address_of
from .._engine.hold_watch import held_connections, listed
from .._session.misuse import remedy_for
from ..errors import UnitworkError
from .unit import Unit

__all__ = ["explain"]

_OF_DATABASES = (OSError, SQLAlchemyError)


def explain(error: BaseException | None, unit: Unit | None) -> None:
    """Add the remedy for a usual mistake, and the database that it can't connect to.

    Before the unit is closed. An error that is explained already stays as it is. The
    events of the unit will have it.
    """
    if unit is None or error is None:
        return
    if unit.report is not None:
        unit.report.error = error
    if not isinstance(error, Exception | BaseExceptionGroup):
        return
    for each in _leaves(error):
        if not isinstance(each, UnitworkError):
            _explain(each, unit)


def _explain(error: BaseException, unit: Unit) -> None:
    notes = [remedy_for(error, tuple(unit.sessions))]
    for database, session in unit.sessions.items():
        engine = database.known_engine
        if session.awaiting_connection and engine and isinstance(error, _OF_DATABASES):
            where = address_of(engine.url)
            notes.append(f"while connecting to database {database.name!r} ({where})")
            if isinstance(error, TimeoutError):
                notes.append(listed(held_connections(engine)).removeprefix(". "))
    before: list[str] = getattr(error, "__notes__", [])
    for note in notes:
        if note and note not in before:
            error.add_note(note)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
