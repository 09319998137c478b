"""The application. The middleware is all that unitwork needs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from unitwork import DBSessionMiddleware
from unitwork.fastapi import exception_handlers

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
app.add_middleware(DBSessionMiddleware, db=db)
app.include_router(router)
