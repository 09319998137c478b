"""What mypy and pyright know of the middleware and of the FastAPI door; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import Annotated, assert_type

from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, make_url
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import sessionmaker
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unitwork import AsyncDatabase, Database, DBSessionMiddleware, Ending, UnitOfWork
from unitwork.fastapi import (
    UnitDep,
    answer_conflict,
    answer_database_error,
    answer_pool_timeout,
    exception_handlers,
    unit_of_work,
)

db = AsyncDatabase("sqlite+aiosqlite://")
reports = Database("sqlite://", name="reports")


async def application(scope: Scope, receive: Receive, send: Send) -> None: ...


def policy(ending: Ending) -> bool:
    return True


# Any ASGI application, one database or several

assert_type(DBSessionMiddleware(application, db), DBSessionMiddleware)
DBSessionMiddleware(application, db=db)
DBSessionMiddleware(application, [db, reports], commit_when=policy)
DBSessionMiddleware(application, (reports,), state_attribute="session")
DBSessionMiddleware(application, db, answer_errors=False)
DBSessionMiddleware(FastAPI(), db)
DBSessionMiddleware(application, "sqlite://")
DBSessionMiddleware(application, make_url("sqlite://"))
DBSessionMiddleware(application, [create_engine("sqlite://"), db])
DBSessionMiddleware(application, sessionmaker(create_engine("sqlite://")))
DBSessionMiddleware(application, create_async_engine("sqlite+aiosqlite://"))
DBSessionMiddleware(
    application, async_sessionmaker(create_async_engine("sqlite+aiosqlite://"))
)
DBSessionMiddleware(DBSessionMiddleware(application, db), reports)

DBSessionMiddleware(application)  # type: ignore[call-arg]
DBSessionMiddleware(application, 7)  # type: ignore[arg-type]
DBSessionMiddleware(application, db_url="sqlite://")  # type: ignore[call-arg]
DBSessionMiddleware(application, db, policy)  # type: ignore[call-arg]
DBSessionMiddleware(application, db, commit_when=len)  # type: ignore[arg-type]
DBSessionMiddleware(application, db, answer_errors="no")  # type: ignore[arg-type]
DBSessionMiddleware(application, db, state_attribute=None)  # type: ignore[arg-type]

# As Starlette and FastAPI take it

app = FastAPI(exception_handlers=exception_handlers)
app.add_middleware(DBSessionMiddleware, db=db)
app.add_middleware(DBSessionMiddleware, db=[db, reports], commit_when=policy)
app.add_middleware(DBSessionMiddleware)  # type: ignore[call-arg]
app.add_middleware(DBSessionMiddleware, db=db, policy=policy)  # type: ignore[call-arg]
Starlette(middleware=[Middleware(DBSessionMiddleware, db=db)])
app.add_exception_handler(LookupError, answer_conflict)

# Dependencies

SessionDep = Annotated[AsyncSession, Depends(db.session)]


@app.get("/")
async def endpoint(session: SessionDep, unit: UnitDep) -> None:
    assert_type(session, AsyncSession)
    assert_type(unit, UnitOfWork)


async def answer(request: Request, error: Exception) -> Response:
    assert_type(await unit_of_work(), UnitOfWork)
    assert_type(await answer_conflict(request, error), Response)
    assert_type(await answer_pool_timeout(request, error), Response)
    return await answer_database_error(request, error)
