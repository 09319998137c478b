"""The current unit of work: the innermost one around the caller, or a request's."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

from .._redaction import described
from .._session.database_core import DatabaseCore
from ..errors import MissingSessionError, UsageError
from ..options import EndpointMark
from .owner import UnitOwner
from .unit import Unit
from .unit_of_work import UnitOfWork, facade_of

__all__ = [
    "UnitProvider",
    "current",
    "current_unit",
    "innermost",
    "report_endpoint",
    "unit_of",
    "unit_of_request",
]


class UnitProvider(Protocol):
    """A unit, or a connection that makes its unit on first use."""

    def open_unit(self) -> Unit: ...


_ORDER = (
    "As a dependency write Depends(db.session), which is called in each request. "
    "In a middleware: call add_middleware(DBSessionMiddleware, ...) after that of the "
    "other one, as what is added later is further out"
)

current: ContextVar[UnitProvider | None] = ContextVar("unitwork", default=None)
"""Set before the application is called; what the application sets is not read."""


def innermost() -> Unit | None:
    """The innermost unit around the caller, whatever its databases; may be closed.

    The consumer of a generator is in its context, but not inside the blocks in it.
    """
    provider = current.get()
    if provider is None:
        return None
    unit = provider.open_unit()
    while (block := unit.generator_block) is not None and unit.parent is not None:
        if block.contains_caller():
            break
        unit = unit.parent
    return unit


def report_endpoint(mark: EndpointMark) -> None:
    """Report a call of an endpoint with options to the connections around the caller.

    A middleware that copies the scope hides the endpoint, which frameworks leave there.
    """
    provider: object = current.get()
    if isinstance(provider, Unit):
        for unit in provider.outwards():
            unit.owner.endpoint_called(mark)
    elif isinstance(provider, UnitOwner):
        provider.endpoint_called(mark)


def current_unit() -> UnitOfWork:
    """The unit of work around the caller: the innermost one.

    Works in endpoints, dependencies, hooks and anything they call, sync or async.
    Raises `MissingSessionError` where there is none, `SessionEndedError` once it is
    over.

    .. versionadded:: 0.1
    """
    unit = innermost()
    if unit is None:
        raise MissingSessionError(
            "there is no unit of work here: write "
            "`app.add_middleware(DBSessionMiddleware, db=db)`, or open one: "
            "`async with db.transaction() as session:`, `with` for a Database. "
            + _ORDER
        )
    unit.check_open()
    return facade_of(unit)


def unit_of(database: DatabaseCore) -> Unit:
    """The innermost unit around the caller that covers *database*."""
    provider = current.get()
    around = unit = None if provider is None else provider.open_unit()
    if unit is not None and unit.generator_block is not None:
        around = unit = innermost()
    while unit is not None:
        if database in unit.databases.values():
            return unit
        unit = unit.parent
    found = f"there is no unit of work for database {database.name!r} here"
    keyword = "async with" if database.is_async else "with"
    block = f"`{keyword} db.transaction() as session:`"
    if around is not None:
        others = " and ".join(repr(name) for name in around.databases)
        raise MissingSessionError(
            f"{found}, only for {others} of another object: import one and the same "
            "object everywhere. For two databases give the middleware both, "
            "`app.add_middleware(DBSessionMiddleware, db=[db, other_db])`, or open a "
            f"unit of this one: {block}"
        )
    raise MissingSessionError(
        f"{found}: write "
        f"`app.add_middleware(DBSessionMiddleware, db=db)`, or open one: {block}. "
        + _ORDER
    )


def unit_of_request(database: DatabaseCore, request: object = None) -> Unit:
    """The unit of *request*, a Starlette `HTTPConnection` or an ASGI scope.

    Without it, the unit of the request around the caller, whatever blocks lie between:
    a dependency that holds a `transaction()` block open does not replace it.
    """
    if request is None:
        unit = unit_of(database)
        return unit if unit.parent is None else _outermost(unit, database)
    scope = getattr(request, "scope", request)
    if not isinstance(scope, Mapping):
        raise UsageError(
            f"give the request (or its ASGI scope), not {described(request)}"
        )
    provider: UnitProvider | None = getattr(scope.get("state"), "provider", None)
    outermost = None if provider is None else provider.open_unit()
    return _covering(outermost, database) or unit_of(database)


def _covering(unit: Unit | None, database: DatabaseCore) -> Unit | None:
    """The innermost of *unit* and those around it that covers *database*."""
    while unit is not None and not unit.covers(database):
        unit = unit.parent
    return unit


def _outermost(unit: Unit, database: DatabaseCore) -> Unit:
    for outer in unit.outwards():
        if outer.covers(database) and outer.is_open:
            unit = outer
    return unit
