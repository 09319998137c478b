"""The middleware of the article: `BaseHTTPMiddleware` and `request.state.db`."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from starlette.middleware.base import BaseHTTPMiddleware

from . import Built, Setup
from .ways import injected

Next = Callable[[Request], Awaitable[Response]]


def build(setup: Setup) -> Built:
    app = FastAPI()
    if setup.is_async:
        app.add_middleware(BaseHTTPMiddleware, dispatch=with_async_session(setup))
    else:
        app.add_middleware(BaseHTTPMiddleware, dispatch=with_session(setup))
    return Built(app, injected(Depends(get_db)))


async def get_db(request: Request) -> Any:
    return request.state.db


def with_session(setup: Setup) -> Callable[[Request, Next], Awaitable[Response]]:
    factory = setup.factory

    async def dispatch(request: Request, call_next: Next) -> Response:
        db = request.state.db = factory()
        try:
            response = await call_next(request)
            db.commit()
            return response
        except Exception:
            db.rollback()
            raise
        finally:
            db.close()

    return dispatch


def with_async_session(setup: Setup) -> Callable[[Request, Next], Awaitable[Response]]:
    factory = setup.async_factory

    async def dispatch(request: Request, call_next: Next) -> Response:
        db = request.state.db = factory()
        try:
            response = await call_next(request)
            await db.commit()
            return response
        except Exception:
            await db.rollback()
            raise
        finally:
            await db.close()

    return dispatch
