"""Requests that fail, and the handlers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response

from support.endpoints import Body
from support.models import add_item


class OurError(Exception):
    pass


class PolicyError(Exception):
    pass


async def answer_ok(request: Request, error: Exception) -> Response:
    return PlainTextResponse("never mind")


def answer_teapot(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": type(error).__name__}, 418)


def adding(then: Callable[[], Any], name: str = "one") -> Body:
    """Give a body that adds an item and does *then*."""

    def body(session: Session) -> Any:
        add_item(session, name)
        return then()

    return body


def raising(kind: type[Exception], *args: Any) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise kind(*args)

    return fail


def ok() -> Response:
    return PlainTextResponse("ok")
