"""Requests whose COMMIT fails."""

from __future__ import annotations

from fastapi.responses import PlainTextResponse
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.asgi import Reply
from support.models import add_item, add_orphan


def conflict(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": "conflict"}, 409)


def fails_at_commit(session: Session) -> Response:
    add_item(session, "lost")
    add_orphan(session)
    return PlainTextResponse("created" * 500, 201)


def check_conflict(reply: Reply) -> None:
    assert (reply.status, reply.json) == (409, {"detail": "conflict"})
    assert (reply.complete, reply.error) == (True, None)


class PassOn(BaseHTTPMiddleware):
    async def dispatch(
        self, request: Request, call_next: RequestResponseEndpoint
    ) -> Response:
        response = await call_next(request)
        response.headers["x-passed-on"] = "yes"
        return response
