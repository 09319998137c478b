"""unitwork, as its first page has it."""

from fastapi import Depends, FastAPI

import unitwork
from unitwork.fastapi import exception_handlers

from ..workloads import AsyncWork, SyncWork
from . import Built, Setup
from .ways import injected


def build(setup: Setup) -> Built:
    kind = unitwork.AsyncDatabase if setup.is_async else unitwork.Database
    db = kind(setup.url, **setup.options)
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(unitwork.DBSessionMiddleware, db=db)
    wrap = injected(Depends(db.session))
    works = AsyncWork if setup.is_async else SyncWork
    read = unitwork.transactional(isolation_level="AUTOCOMMIT")(wrap(works.read))
    app.add_api_route("/autocommit", read)
    return Built(app, wrap)
