"""context-async-sqlalchemy, with the middleware that its FastAPI guide adds."""

from collections.abc import Callable

from context_async_sqlalchemy import DBConnect, db_session
from context_async_sqlalchemy.fastapi_utils import (
    add_fastapi_http_db_session_middleware,
)
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from ..workloads import Endpoint, Work
from . import Built, Setup


def build(
    setup: Setup,
    add: Callable[[FastAPI], object] = add_fastapi_http_db_session_middleware,
) -> Built:
    connect = DBConnect(
        engine_creator=lambda host: create_async_engine(host, **setup.options),
        session_maker_creator=lambda engine: async_sessionmaker(
            engine, expire_on_commit=False
        ),
        host=setup.url,
    )

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> object:
            return await work(await db_session(connect))

        return endpoint

    app = FastAPI()
    add(app)
    return Built(app, wrap)
