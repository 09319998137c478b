"""For FastAPI: the unit as a dependency, and exception handlers to install."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated, Any, Unpack

from fastapi import Depends
from sqlalchemy import exc
from sqlalchemy.orm.exc import StaleDataError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ._asgi.problems import UNREACHABLE, Problem, log_answer, problem_of
from ._classify.classification import Kind, classify
from ._unit.begin_options import add_options
from ._unit.context import current_unit, innermost
from ._unit.error_notes import explain
from ._unit.unit_of_work import UnitOfWork
from .errors import (
    CommitUnknownError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    PartialCommitError,
    PoolTimeoutError,
)
from .options import RouteOptions, TransactionOptions, route_retries

__all__ = [
    "UnitDep",
    "answer_conflict",
    "answer_database_error",
    "answer_pool_timeout",
    "answer_read_only",
    "answer_stale_data",
    "answer_timeout",
    "answer_unknown",
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
    if (given.attempts or 1) > 1:
        route_retries.by_routers = True

    async def apply() -> None:
        unit = innermost()
        if unit is None:
            current_unit()  # raises
        else:
            add_options(unit, given)

    return apply


_BUSY_KINDS = {Kind.RETRY, Kind.RETRY_WITH_CARE, Kind.UNAVAILABLE}
_CONFLICT = Problem(
    HTTPStatus.CONFLICT,
    "The change conflicts with what is stored, or breaks a rule of the database.",
)
_STALE = Problem(
    HTTPStatus.CONFLICT, "What is stored was changed since it was read. Read it again."
)
_BUSY = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE, "The database is busy.", retry_after=1.0
)
_TOO_SLOW = Problem(HTTPStatus.GATEWAY_TIMEOUT, "The database took too long.")
_WRITES = Problem(
    HTTPStatus.METHOD_NOT_ALLOWED, "This method may only read, and tried to write."
)


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
    return _answer(request, error, _CONFLICT)


async def answer_pool_timeout(request: Request, error: Exception) -> Response:
    """Answer 503 with `Retry-After`: every connection is in use.

    .. versionadded:: 0.1
    """
    return _answer(request, error, problem_of(error) or _BUSY)


async def answer_timeout(request: Request, error: Exception) -> Response:
    """Answer 504: a time limit of the request, or of the database, was over.

    .. versionadded:: 0.1
    """
    return _answer(request, error, _TOO_SLOW)


async def answer_read_only(request: Request, error: Exception) -> Response:
    """Answer 405 if a read-only GET or HEAD has tried to write.

    Raises the error again for other methods. Not among the `exception_handlers`: a GET
    that writes is a mistake of the application, and a 405 blames the client.

    .. versionadded:: 0.1
    """
    if request.method not in ("GET", "HEAD"):
        raise error
    response = _answer(request, error, _WRITES)
    response.headers["Allow"] = ""  # RFC 9110, 15.5.6: it has to be there
    return response


async def answer_database_error(request: Request, error: Exception) -> Response:
    """Answer 503 if the database is out of reach, busy or locked, 504 if too slow.

    By the `classify()` of the error; other errors are raised again.

    .. versionadded:: 0.1
    """
    if isinstance(error, DatabaseUnavailableError):
        return _answer(request, error, UNREACHABLE)
    found = classify(error)
    kind = found.kind
    if kind is Kind.TIMEOUT and found.family is not None:  # not another service's
        return await answer_timeout(request, error)
    if kind in _BUSY_KINDS:
        return _answer(request, error, _BUSY)
    if kind is Kind.RECONNECT:
        return _answer(request, error, UNREACHABLE)
    raise error


async def answer_unknown(request: Request, error: Exception) -> Response:
    """Answer 500 with a document which says that the outcome is unknown, or partial.

    For a `CommitUnknownError` and a `PartialCommitError`; others are raised again.

    .. versionadded:: 0.2
    """
    problem = problem_of(error)
    if problem is None:
        raise error
    return _answer(request, error, problem)


async def answer_stale_data(request: Request, error: Exception) -> Response:
    """Answer a `StaleDataError` with 409: the row was changed since it was read.

    .. versionadded:: 0.2
    """
    return _answer(request, error, _STALE)


exception_handlers: dict[Any, Callable[[Request, Any], Any]] = {
    exc.IntegrityError: answer_conflict,
    exc.TimeoutError: answer_pool_timeout,
    PoolTimeoutError: answer_pool_timeout,
    DeadlineExceededError: answer_timeout,
    CommitUnknownError: answer_unknown,
    PartialCommitError: answer_unknown,
    DatabaseUnavailableError: answer_database_error,
    StaleDataError: answer_stale_data,
    exc.DBAPIError: answer_database_error,
    OSError: answer_database_error,
}
"""`FastAPI(exception_handlers=exception_handlers)`; answers are RFC 9457 problems.

.. versionadded:: 0.1
"""


def _answer(request: Request, error: Exception, problem: Problem) -> Response:
    """Make the response; log the *error*, if it says that the server has failed."""
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        explain(error, innermost())
        log_answer(error, problem.status, request.scope)
    return JSONResponse(
        problem.document,
        status_code=problem.status,
        headers=problem.headers,
        media_type="application/problem+json",
    )
