"""For FastAPI: the unit as a dependency, and exception handlers to install."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Unpack

from fastapi import Depends
from sqlalchemy import exc
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ._classify.classification import Kind, classify
from ._unit.begin_options import add_options
from ._unit.context import current_unit, innermost
from ._unit.unit_of_work import UnitOfWork
from .errors import DeadlineExceededError, PoolTimeoutError
from .options import RouteOptions, TransactionOptions

__all__ = [
    "UnitDep",
    "answer_conflict",
    "answer_database_error",
    "answer_pool_timeout",
    "answer_read_only",
    "answer_timeout",
    "exception_handlers",
    "transaction_options",
    "unit_of_work",
]


def transaction_options(
    **options: Unpack[RouteOptions],
) -> Callable[[], Awaitable[None]]:
    """Return a dependency that sets the options of the transactions of a router.

    `APIRouter(dependencies=[Depends(transaction_options(read_only=True))])`, also for a
    route or for the whole application; an endpoint's own `@transactional` comes first.
    Raises `UsageError` as `TransactionOptions` does, and in a request whose transaction
    has begun without the options.

    .. versionadded:: 0.1
    """
    given = TransactionOptions(**options)

    async def apply() -> None:
        unit = innermost()
        if unit is None:
            current_unit()  # raises
        else:
            add_options(unit, given)

    return apply


_BUSY = {Kind.RETRY, Kind.RETRY_WITH_CARE, Kind.UNAVAILABLE}


async def unit_of_work() -> UnitOfWork:
    """Return the unit of work of the request. Raises as `current_unit()` does.

    .. versionadded:: 0.1
    """
    return current_unit()


UnitDep = Annotated[UnitOfWork, Depends(unit_of_work)]
"""The unit of the request, as the annotation of a parameter.

.. versionadded:: 0.1
"""


async def answer_conflict(request: Request, error: Exception) -> Response:
    """Answer an `IntegrityError` with 409, of a flush or of COMMIT.

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


async def answer_timeout(request: Request, error: Exception) -> Response:
    """Answer 504: a time limit of the request, or of the database, was over.

    .. versionadded:: 0.1
    """
    return _problem(HTTPStatus.GATEWAY_TIMEOUT, "The database took too long.")


async def answer_read_only(request: Request, error: Exception) -> Response:
    """Answer 405 if a read-only GET or HEAD has tried to write.

    Raises the error again for other methods. Not among the `exception_handlers`: a GET
    that writes is a mistake of the application, and a 405 blames the client.

    .. versionadded:: 0.1
    """
    if request.method not in ("GET", "HEAD"):
        raise error
    response = _problem(
        HTTPStatus.METHOD_NOT_ALLOWED, "This method may only read, and tried to write."
    )
    response.headers["Allow"] = ""  # RFC 9110, 15.5.6: it has to be there
    return response


async def answer_database_error(request: Request, error: Exception) -> Response:
    """Answer 503 if the database is out of reach, busy or locked, 504 if too slow.

    By the `classify()` of the error; other errors are raised again.

    .. versionadded:: 0.1
    """
    found = classify(error)
    kind = found.kind
    if kind is Kind.TIMEOUT and found.family is not None:  # not another service's
        return await answer_timeout(request, error)
    if kind in _BUSY:
        return _unavailable("The database is busy.", retry_after=1.0)
    if kind is Kind.RECONNECT:
        return _unavailable("The database can't be reached.", retry_after=5.0)
    raise error


exception_handlers: dict[Any, Callable[[Request, Any], Any]] = {
    exc.IntegrityError: answer_conflict,
    exc.TimeoutError: answer_pool_timeout,
    PoolTimeoutError: answer_pool_timeout,
    DeadlineExceededError: answer_timeout,
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
    """A problem in the format of RFC 9457."""
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
