"""The same with its pure ASGI middleware, which commits after the response."""

from context_async_sqlalchemy.asgi_utils import ASGIHTTPDBSessionMiddleware
from fastapi import FastAPI

from . import Built, Setup, context_async_sqlalchemy


def build(setup: Setup) -> Built:
    return context_async_sqlalchemy.build(setup, add)


def add(app: FastAPI) -> None:
    app.add_middleware(ASGIHTTPDBSessionMiddleware)
