"""fastapi-sqla, which is set up by environment variables."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import fastapi_sqla
from fastapi import Depends, FastAPI

from . import Built, Setup, quieten_structlog
from .ways import injected


def build(setup: Setup) -> Built:
    quieten_structlog()
    os.environ["sqlalchemy_url"] = setup.url  # noqa: SIM112  # its own spelling
    for name, value in setup.options.items():
        os.environ[f"sqlalchemy_{name}"] = str(value)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await fastapi_sqla.startup()
        yield

    app = FastAPI(lifespan=lifespan)
    fastapi_sqla.setup_middlewares(app)
    if setup.is_async:
        return Built(app, injected(Depends(fastapi_sqla.AsyncSessionDependency())))
    return Built(app, injected(Depends(fastapi_sqla.SessionDependency())))
