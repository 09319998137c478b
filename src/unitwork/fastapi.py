"""For FastAPI: the unit as a dependency, and exception handlers ready to install."""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus
from socket import gaierror
from traceback import walk_tb
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import exc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ._unit import UnitOfWork, current_unit
from .errors import PoolTimeoutError

__all__ = [
    "UnitDep",
    "answer_conflict",
    "answer_database_error",
    "answer_pool_timeout",
    "exception_handlers",
    "unit_of_work",
]

_SQLITE_BUSY = 5
_PASSING = frozenset({"08", "40", "53", "57"})  # SQLSTATE classes of what will pass


async def unit_of_work() -> UnitOfWork:
    """Give the unit of work of the request. Raises as `current_unit()` does.

    .. versionadded:: 0.1
    """
    return current_unit()


UnitDep = Annotated[UnitOfWork, Depends(unit_of_work)]
"""The unit of the request, as the annotation of a parameter.

.. versionadded:: 0.1
"""


async def answer_conflict(request: Request, error: Exception) -> Response:
    """Answer an `IntegrityError` with 409, whether a flush met it or COMMIT did.

    .. versionadded:: 0.1
    """
    return _problem(
        HTTPStatus.CONFLICT,
        "The change conflicts with what is stored, or breaks a rule of the database.",
    )


async def answer_pool_timeout(request: Request, error: Exception) -> Response:
    """Answer 503 with `Retry-After`: every connection is in use.

    .. versionadded:: 0.1
    """
    wait = error.retry_after if isinstance(error, PoolTimeoutError) else 1.0
    return _unavailable("The database is busy.", retry_after=wait)


async def answer_database_error(request: Request, error: Exception) -> Response:
    """Answer 503 if the database can't be reached or is locked; raise other errors on.

    .. versionadded:: 0.1
    """
    orig = getattr(error, "orig", None)
    if getattr(orig, "sqlite_errorcode", 0) & 0xFF == _SQLITE_BUSY:
        return _unavailable("The database is busy.", retry_after=1.0)
    if _is_out_of_reach(error):
        return _unavailable("The database can't be reached.", retry_after=5.0)
    raise error


exception_handlers: dict[Any, Callable[[Request, Any], Any]] = {
    exc.IntegrityError: answer_conflict,
    exc.TimeoutError: answer_pool_timeout,
    PoolTimeoutError: answer_pool_timeout,
    exc.DBAPIError: answer_database_error,
    ConnectionRefusedError: answer_database_error,
    gaierror: answer_database_error,
}
"""`FastAPI(exception_handlers=exception_handlers)`; answers are RFC 9457 problems.

.. versionadded:: 0.1
"""


def _is_out_of_reach(error: Exception) -> bool:
    """Lost, or never had: an error without a statement comes from connecting.

    Or from COMMIT: then the SQLSTATE, if there is one, says whether it may be tried
    again, such as a serialization failure, or not, such as a trigger that said no.
    """
    if not isinstance(error, exc.DBAPIError):
        return _came_from_pool(error)
    if error.connection_invalidated:
        return True
    state: str | None = getattr(error.orig, "sqlstate", None)
    return error.statement is None and (state is None or state[:2] in _PASSING)


def _came_from_pool(error: Exception) -> bool:
    """Whether it was a database that refused; asyncpg's errors come unwrapped."""
    frames = walk_tb(error.__traceback__)
    names = (frame.f_globals.get("__name__", "") for frame, _ in frames)
    return any(name.startswith("sqlalchemy.pool") for name in names)


def _unavailable(detail: str, *, retry_after: float) -> Response:
    response = _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail)
    response.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
    return response


def _problem(status: HTTPStatus, detail: str) -> Response:
    """Describe a problem as RFC 9457 says."""
    return JSONResponse(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
        },
        status_code=status,
        media_type="application/problem+json",
    )
