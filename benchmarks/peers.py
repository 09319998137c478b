"""The other libraries, each as its README has it. Each is imported only when built."""

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .contestants import Built, Setup, fetched, injected
from .workloads import Endpoint, Work, play


def fastapi_sqlalchemy(setup: Setup) -> Built:
    from fastapi_sqlalchemy import DBSessionMiddleware, db

    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware, custom_engine=setup.engine(), commit_on_exit=True
    )
    return Built(app, fetched(setup, lambda: db.session))


def fastapi_async_sqlalchemy(setup: Setup) -> Built:
    from fastapi_async_sqlalchemy import SQLAlchemyMiddleware, db

    app = FastAPI()
    options = {"engine_args": {**setup.engine_options}, "commit_on_exit": True}
    app.add_middleware(SQLAlchemyMiddleware, db_url=setup.url, **options)
    return Built(app, fetched(setup, lambda: db.session))


def fastapi_sqla(setup: Setup) -> Built:
    import fastapi_sqla as peer

    quieten_structlog()
    os.environ["sqlalchemy_url"] = setup.url  # noqa: SIM112  # its own spelling
    for name, value in setup.engine_options.items():
        os.environ[f"sqlalchemy_{name}"] = str(value)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await peer.startup()
        yield

    app = FastAPI(lifespan=lifespan)
    peer.setup_middlewares(app)
    kind = peer.AsyncSessionDependency if setup.is_async else peer.SessionDependency
    return Built(app, injected(setup, Depends(kind())))


def fastsqla(setup: Setup) -> Built:
    import fastsqla as peer

    quieten_structlog()
    app = FastAPI(lifespan=peer.new_lifespan(setup.url, **setup.engine_options))
    return Built(app, injected(setup, get_args(peer.Session)[1]))


def advanced_alchemy(setup: Setup) -> Built:
    from advanced_alchemy.extensions import fastapi as peer

    config: Any
    if setup.is_async:
        config = peer.SQLAlchemyAsyncConfig(
            engine_instance=setup.engine(),
            session_config=peer.AsyncSessionConfig(expire_on_commit=False),
            commit_mode="autocommit",
        )
    else:
        config = peer.SQLAlchemySyncConfig(
            engine_instance=setup.engine(), commit_mode="autocommit"
        )
    app = FastAPI()
    alchemy = peer.AdvancedAlchemy(config=config, app=app)
    return Built(app, injected(setup, Depends(alchemy.provide_session())))


def context(setup: Setup, add: Callable[[FastAPI], object] | None = None) -> Built:
    from context_async_sqlalchemy import DBConnect, db_session
    from context_async_sqlalchemy.fastapi_utils import (
        add_fastapi_http_db_session_middleware,
    )

    connect = DBConnect(
        engine_creator=lambda host: create_async_engine(host, **setup.engine_options),
        session_maker_creator=lambda engine: async_sessionmaker(
            engine, expire_on_commit=False
        ),
        host=setup.url,
    )

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            return await play(work, await db_session(connect))

        return endpoint

    app = FastAPI()
    (add or add_fastapi_http_db_session_middleware)(app)
    return Built(app, wrap)


def context_asgi(setup: Setup) -> Built:
    """With its pure ASGI middleware, which commits after the response."""
    from context_async_sqlalchemy.asgi_utils import ASGIHTTPDBSessionMiddleware

    return context(setup, lambda app: app.add_middleware(ASGIHTTPDBSessionMiddleware))


def fastapi_toolsets(setup: Setup) -> Built:
    from fastapi_toolsets.db import Database

    db = Database(engine=setup.engine())
    app = FastAPI()
    db.install(app)
    return Built(app, injected(setup, Depends(db)))


def quieten_structlog() -> None:
    """Log only warnings, as in production: we do not measure logging."""
    import structlog

    warnings = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=warnings)
