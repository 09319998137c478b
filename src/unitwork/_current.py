"""Whose unit of work is this? Around the caller, or that of a request."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .errors import MissingSessionError, UsageError

if TYPE_CHECKING:
    from ._source import Source
    from ._unit import UnitOfWork

__all__ = ["covering", "current", "current_unit", "unit_of", "unit_of_request"]

current: ContextVar[UnitOfWork | None] = ContextVar("unitwork", default=None)
"""Set before the application is called, and never read back from what it set."""


def current_unit() -> UnitOfWork:
    """The unit of work around the caller: the innermost one.

    Works in endpoints, dependencies, hooks and anything they call, sync or async.
    Raises `MissingSessionError` where there is none, `SessionEndedError` once it is
    over.

    .. versionadded:: 0.1
    """
    unit = current.get()
    if unit is None:
        raise MissingSessionError(
            "there is no unit of work here: add DBSessionMiddleware to the "
            "application, or open one: `async with db.transaction() as session:`"
        )
    unit._check_open()
    return unit


def unit_of(source: Source) -> UnitOfWork:
    """The innermost unit around the caller that has to do with *source*."""
    unit = covering(current.get(), source)
    if unit is None:
        raise MissingSessionError(
            f"there is no unit of work for database {source.name!r} here: give it to "
            "DBSessionMiddleware (db=...), or open one: "
            "`async with db.transaction() as session:`"
        )
    return unit


def unit_of_request(source: Source, request: object = None) -> UnitOfWork:
    """The unit of *request*, a Starlette `HTTPConnection` or an ASGI scope.

    Without it, the unit of the request around the caller, whatever blocks lie between:
    a dependency that holds a `transaction()` block open takes over nobody's session.
    """
    if request is None:
        return _outermost(unit_of(source), source)
    scope = getattr(request, "scope", request)
    if not isinstance(scope, Mapping):
        raise UsageError(f"give the request (or its ASGI scope), not {request!r}")
    unit = covering(getattr(scope.get("state"), "unit", None), source)
    return unit_of(source) if unit is None else unit


def covering(unit: UnitOfWork | None, source: Source) -> UnitOfWork | None:
    """The innermost of *unit* and those around it that has to do with *source*."""
    while unit is not None and source not in unit._sources.values():
        unit = unit._parent
    return unit


def _outermost(unit: UnitOfWork, source: Source) -> UnitOfWork:
    parent = unit._parent
    while parent is not None:
        if parent._covers(source) and not parent._ended:
            unit = parent
        parent = parent._parent
    return unit
