"""fastapi-async-sqlalchemy, as its README has it, with `commit_on_exit`."""

from fastapi import FastAPI
from fastapi_async_sqlalchemy import SQLAlchemyMiddleware, db

from . import Built, Setup
from .ways import fetched


def build(setup: Setup) -> Built:
    app = FastAPI()
    app.add_middleware(
        SQLAlchemyMiddleware,
        db_url=setup.url,
        engine_args={**setup.options},
        commit_on_exit=True,
    )
    return Built(app, fetched(lambda: db.session))
