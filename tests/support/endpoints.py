"""One body as an application of each framework, and as dependencies of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from support.asgi import ASGIApp, Message
from support.flavours import Flavour
from unitwork import DBSessionMiddleware

Body = Callable[[Session], Any]
METHODS = ["GET", "HEAD", "POST"]


def serve_fastapi(
    flavour: Flavour, body: Body, *, handlers: Any = None, **options: Any
) -> FastAPI:
    """Serve *body* at "/"; *options* are the middleware's."""
    app = FastAPI(exception_handlers=handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    app.api_route("/", methods=METHODS)(flavour.endpoint(body))
    return app


def serve_starlette(
    flavour: Flavour, body: Body, *, handlers: Any = None, **options: Any
) -> Starlette:
    async def endpoint(request: Request) -> Response:
        response: Response = await flavour.do(await flavour.db.session(request), body)
        return response

    route = Route("/", endpoint, methods=METHODS)
    app = Starlette(routes=[route], exception_handlers=handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    return app


def serve_bare(flavour: Flavour, body: Body, **options: Any) -> ASGIApp:
    """Without any framework, and without exception handlers."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        response = await flavour.do(await flavour.db.session(scope), body)
        await response(scope, receive, send)

    return DBSessionMiddleware(app, flavour.db, **options)


def yielding(
    flavour: Flavour, before: Body, after: Body, *, catch: type[BaseException] = OSError
) -> Callable[..., Any]:
    """A dependency with `yield` between *before* and *after*; it swallows *catch*."""
    injected = Depends(flavour.db.session)
    if flavour.is_async:

        async def async_dependency(
            session: AsyncSession = injected,
        ) -> AsyncIterator[None]:
            await session.run_sync(before)
            try:
                yield
            except catch:
                pass
            finally:
                await session.run_sync(after)

        return async_dependency

    def dependency(session: Session = injected) -> Iterator[None]:
        before(session)
        try:
            yield
        except catch:
            pass
        finally:
            after(session)

    return dependency
