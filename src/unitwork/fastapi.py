"""For FastAPI: the unit as a dependency, and exception handlers ready to install."""

from __future__ import annotations

import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends
from sqlalchemy import exc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ._classify import Kind, classify
from ._current import current_unit
from ._unit import UnitOfWork
from .errors import PoolTimeoutError

__all__ = [
    "UnitDep",
    "answer_conflict",
    "answer_database_error",
    "answer_pool_timeout",
    "exception_handlers",
    "unit_of_work",
]

_BUSY = {Kind.RETRY, Kind.RETRY_WITH_CARE, Kind.UNAVAILABLE}


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
    """Answer 503 if the database is out of reach, busy or locked; raise others on.

    That is what `classify()` says of the error.

    .. versionadded:: 0.1
    """
    kind = classify(error).kind
    if kind in _BUSY:
        return _unavailable("The database is busy.", retry_after=1.0)
    if kind is Kind.RECONNECT:
        return _unavailable("The database can't be reached.", retry_after=5.0)
    raise error


exception_handlers: dict[Any, Callable[[Request, Any], Any]] = {
    exc.IntegrityError: answer_conflict,
    exc.TimeoutError: answer_pool_timeout,
    PoolTimeoutError: answer_pool_timeout,
    exc.DBAPIError: answer_database_error,
    OSError: answer_database_error,
}
"""`FastAPI(exception_handlers=exception_handlers)`; answers are RFC 9457 problems.

.. versionadded:: 0.1
"""


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
