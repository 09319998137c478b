"""The responses of the inspector, and the headers that all of them have."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, NamedTuple

__all__ = ["JSON", "Response", "Send", "not_found", "send_response"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = "application/json"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "vary": "accept",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex",
}


class Response(NamedTuple):
    """One whole response."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = {}


async def send_response(response: Response, send: Send, *, is_head: bool) -> None:
    """Send it as ASGI says, without its body if the method was HEAD."""
    headers = {
        "content-type": response.kind,
        "content-length": str(len(response.body)),
        **_HEADERS,
        **response.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": response.status.value,
            "headers": [(key.encode(), each.encode()) for key, each in headers.items()],
        }
    )
    body = b"" if is_head else response.body
    await send({"type": "http.response.body", "body": body})


async def not_found(scope: Mapping[str, Any], send: Send) -> None:
    """Answer as if nothing were mounted here.

    In an application of Starlette or FastAPI that is what its handler of 404 answers.
    """
    starlette: Any = sys.modules.get("starlette.applications")
    if starlette is not None and isinstance(scope.get("app"), starlette.Starlette):
        from starlette.exceptions import HTTPException

        raise HTTPException(HTTPStatus.NOT_FOUND)
    body = b"Not Found"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
