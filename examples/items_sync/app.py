"""The application. The middleware is all that unitwork needs; /units shows its work."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from unitwork import DBSessionMiddleware, TransactionOptions
from unitwork.fastapi import exception_handlers
from unitwork.inspector import Inspector
from unitwork.replicas import SignedCookie

from ..items.errors import answer_invalid
from ..items.models import Base
from .database import db
from .routes import router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with db.engine.begin() as connection:
        Base.metadata.create_all(connection)
    yield


app = FastAPI(
    title="Items",
    lifespan=lifespan,
    exception_handlers={**exception_handlers, RequestValidationError: answer_invalid},
)
app.add_middleware(
    DBSessionMiddleware,
    db=db,
    options={"GET": TransactionOptions(read_only=True)},  # from replicas, if any
    read_your_writes=SignedCookie(os.environ.get("SECRET", "change me in production")),
)
app.include_router(router)
app.mount("/units", Inspector(db))  # for browsers on this machine only
