"""FastAPI-SQLAlchemy, as its README has it, with `commit_on_exit`."""

from fastapi import FastAPI
from fastapi_sqlalchemy import DBSessionMiddleware, db

from . import Built, Setup
from .ways import fetched


def build(setup: Setup) -> Built:
    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware, custom_engine=setup.engine, commit_on_exit=True
    )
    return Built(app, fetched(lambda: db.session))
