"""The error for an attribute that a database lacks: what to write in its place."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..errors import UsageError

__all__ = ["no_attribute"]

_BLOCK = "db.transaction()"
_IN_PLACE_OF = {
    "begin": _BLOCK,
    "begin_nested": f'{_BLOCK[:-1]}nested="savepoint")',
    "close": "db.dispose()",
    "connect": "db.engine.connect()",
    "get_db": "Depends(db.session)",
    "get_session": "Depends(db.session)",
    "session_factory": _BLOCK,
    "session_maker": _BLOCK,
    "sessionmaker": _BLOCK,
    "unit": "current_unit()",
    "url": "db.engine.url",
}
"""What others call it, or what a session, an engine or a sessionmaker has."""


class _NoAttribute(UsageError, AttributeError):
    """A database was used as if it was a session, an engine or a sessionmaker."""


def no_attribute(kind: str, name: str) -> AttributeError:
    """Make the error to raise for the attribute *name* of a database of *kind*."""
    found = f"{kind!r} object has no attribute {name!r}"
    if name in _IN_PLACE_OF:
        return _NoAttribute(f"{found}: write {_IN_PLACE_OF[name]}")
    if name.startswith("_") or not hasattr(Session, name):
        return AttributeError(found)
    return _NoAttribute(
        f"{found}, as it is no session: the session is a parameter of the endpoint, by "
        f"Depends(db.session); write db.current.{name} in what the endpoint calls, and "
        f"session.{name} in a block of db.transaction() as session"
    )
