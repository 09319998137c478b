"""unitwork, as its first page has it."""

from fastapi import Depends, FastAPI

import unitwork
from unitwork.fastapi import exception_handlers

from . import Built, Setup
from .ways import fetched, injected


def build(setup: Setup, *, current: bool = False) -> Built:
    kind = unitwork.AsyncDatabase if setup.is_async else unitwork.Database
    db = kind(setup.url, **setup.options)
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(unitwork.DBSessionMiddleware, db=db)
    wrap = fetched(lambda: db.current) if current else injected(Depends(db.session))
    alone = unitwork.transactional(isolation_level="AUTOCOMMIT")
    return Built(app, wrap, lambda work: alone(wrap(work)))
