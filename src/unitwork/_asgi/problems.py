"""What a client reads of unitwork's own errors: problem documents (RFC 9457)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from json import dumps
from typing import Any, NamedTuple

from sqlalchemy.exc import TimeoutError as PoolTimeoutOfSQLAlchemy

from .._observing.subjects import printable
from ..errors import (
    CommitUnknownError,
    DatabaseUnavailableError,
    DeadlineExceededError,
    PartialCommitError,
    PoolTimeoutError,
)
from .route_templates import route_of
from .types import Send

__all__ = ["UNREACHABLE", "Problem", "log_answer", "name_of", "problem_of"]

log = logging.getLogger("unitwork")

_URN = "urn:problem-type:unitwork:"


class Problem(NamedTuple):
    """A response in the format of RFC 9457; *retry_after* in seconds."""

    status: HTTPStatus
    detail: str
    retry_after: float | None = None
    type: str = "about:blank"
    title: str | None = None

    @property
    def document(self) -> dict[str, str | int]:
        return {
            "type": self.type,
            "title": self.title or self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }

    @property
    def headers(self) -> dict[str, str]:
        """Those beside the type and the length of the content."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}

    async def send(self, send: Send) -> None:
        """Send it as ASGI says."""
        body = dumps(self.document).encode()
        headers = {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            **self.headers,
        }
        await send(
            {
                "type": "http.response.start",
                "status": self.status.value,
                "headers": [
                    (key.lower().encode(), value.encode())
                    for key, value in headers.items()
                ],
            }
        )
        await send({"type": "http.response.body", "body": body})


UNREACHABLE = Problem(
    HTTPStatus.SERVICE_UNAVAILABLE, "The database can't be reached.", retry_after=5.0
)
_UNKNOWN = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "The outcome of this request is unknown: nothing confirms that the change was "
    "committed. It may be stored, or it may not be. Check before you try again.",
    type=_URN + "commit-unknown",
    title="Outcome unknown",
)
_PARTIAL = Problem(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "Only a part of the change is stored: one database has committed it, and another "
    "one has not, or may not have. Do not try again before that is put right.",
    type=_URN + "partial-commit",
    title="Partly stored",
)


def problem_of(error: BaseException) -> Problem | None:
    """The answer to *error*, if it is one of unitwork's own that has one."""
    if isinstance(error, CommitUnknownError):
        return _UNKNOWN
    if isinstance(error, PartialCommitError):
        return _PARTIAL
    if isinstance(error, DeadlineExceededError):
        return Problem(HTTPStatus.GATEWAY_TIMEOUT, "The database took too long.")
    if isinstance(error, DatabaseUnavailableError):
        return UNREACHABLE
    if isinstance(error, PoolTimeoutError | PoolTimeoutOfSQLAlchemy):
        wait: float = getattr(error, "retry_after", 1.0)
        busy = HTTPStatus.SERVICE_UNAVAILABLE
        return Problem(busy, "The database is busy.", retry_after=wait)
    return None


def name_of(scope: Mapping[str, Any]) -> str:
    """The method and the path of a request, as its route has it, if that is known."""
    path = route_of(scope) or printable(scope.get("path", ""))
    return f"{scope.get('method', 'WebSocket')} {path}"


def log_answer(error: BaseException, status: int, scope: Mapping[str, Any]) -> None:
    """Log an *error* that a response with *status* takes the place of.

    That a database is out of reach takes one line, as health checks repeat it. That a
    pool is exhausted takes the list of those that hold its connections: a traceback
    would take milliseconds of the event loop, in an overload for each request, and end
    in the pool each time. Both have the traceback if DEBUG is logged.
    """
    name = name_of(scope)
    fields = {"unitwork_route": route_of(scope), "unitwork_status": status}
    level, details = logging.ERROR, _holds_in(error)
    if isinstance(error, DatabaseUnavailableError):
        level, details = logging.WARNING, str(error)
    traceback = error if not details or log.isEnabledFor(logging.DEBUG) else None
    message = "%s was answered with %d"
    arguments: tuple[object, ...] = (name, status)
    if details:
        message, arguments = message + ": %s", (*arguments, details)
    log.log(level, message, *arguments, exc_info=traceback, extra=fields)


def _holds_in(error: BaseException) -> str:
    """Who holds the connections of a pool: who the longest, then all that are listed.

    They are in *error* or its notes.
    """
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    _, _, listed = text.partition("Held by:\n- ")
    return f"held by {listed.splitlines()[0]}\n{text}" if listed else ""
