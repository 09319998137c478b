"""Who takes part, and how each is built.

A builder takes a `Setup`, and gives a FastAPI application and the contestant's way to
make an endpoint of work with a session. Libraries are used as their README has it.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from starlette.middleware.base import BaseHTTPMiddleware

import unitwork as ours
from unitwork.fastapi import exception_handlers

from . import workloads
from .options import SYNC_DRIVERS
from .workloads import Endpoint, Work, Wrap, play, play_in_thread


@dataclass(frozen=True, eq=False)
class Setup:
    """What a contestant is built for."""

    driver: str
    url: str
    engine_options: Mapping[str, Any]

    @property
    def is_async(self) -> bool:
        return self.driver not in SYNC_DRIVERS

    @property
    def play(self) -> Callable[..., Any]:
        """What runs work with a session; FastAPI runs `def` in a thread."""
        return play if self.is_async else play_in_thread

    def engine(self) -> Any:
        if self.is_async:
            return create_async_engine(self.url, **self.engine_options)
        return create_engine(self.url, **self.engine_options)

    def factory(self) -> Any:
        if self.is_async:
            return async_sessionmaker(self.engine(), expire_on_commit=False)
        return sessionmaker(self.engine())


class Built(NamedTuple):
    app: FastAPI
    wrap: Wrap


class Contestant(NamedTuple):
    """One way to get a session and to end its transaction."""

    title: str
    build: Callable[[Setup], Built]
    only: Literal["", "async", "sync"] = ""

    def runs_on(self, driver: str) -> bool:
        return self.only != ("async" if driver in SYNC_DRIVERS else "sync")


def build(name: str, setup: Setup) -> Built:
    """Build *name*, with a route for each workload; needs its package."""
    built = CONTESTANTS[name].build(setup)
    route = built.app.add_api_route
    route("/nothing", nothing)
    for load in workloads.WORKLOADS.values():
        if load.work is not None:
            route(f"/{load.name}", built.wrap(load.work), methods=[load.method])
    return built


async def nothing() -> dict[str, str]:
    return {}


def injected(setup: Setup, given: Any) -> Wrap:
    """The framework injects the session from *given*, which is `Depends(...)`."""
    return lambda work: partial(setup.play, work, session=given)


def fetched(setup: Setup, fetch: Callable[[], Any]) -> Wrap:
    """The endpoint gets the session with *fetch*."""

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            return await play(work, fetch())

        def endpoint_in_thread() -> Any:
            return play_in_thread(work, fetch())

        return endpoint if setup.is_async else endpoint_in_thread

    return wrap


def limit(setup: Setup) -> Built:
    """Nothing between the endpoint and SQLAlchemy."""
    begin = setup.factory().begin

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            async with begin() as session:
                return await play(work, session)

        def endpoint_in_thread() -> Any:
            with begin() as session:
                return play_in_thread(work, session)

        return endpoint if setup.is_async else endpoint_in_thread

    return Built(FastAPI(), wrap)


def plain(setup: Setup) -> Built:
    """The same, without the tasks that `async with begin()` makes to end."""
    factory = setup.factory()

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            session = factory()
            try:
                answer = await play(work, session)
                await session.commit()
            finally:
                await session.close()
            return answer

        return endpoint

    return Built(FastAPI(), wrap)


def bare(setup: Setup) -> Built:
    return Built(FastAPI(), fetched(setup, nullcontext))


def unitwork(
    setup: Setup,
    *,
    current: bool = False,
    isolation_level: str | None = None,
    release: str = "",
) -> Built:
    """As its first page has it; also as it was before, where that is on the path."""
    kind: Callable[..., Any] = ours.AsyncDatabase if setup.is_async else ours.Database
    mode = {"release": release} if release else {}  # none in an earlier unitwork
    db = kind(setup.url, **setup.engine_options, **mode)
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(ours.DBSessionMiddleware, db=db)
    get = fetched(setup, lambda: db.current)
    wrap = get if current else injected(setup, Depends(db.session))
    if isolation_level is None:
        return Built(app, wrap)
    transactional = ours.transactional(isolation_level=isolation_level)
    return Built(app, lambda work: transactional(wrap(work)))


def depends(setup: Setup, scope: Literal["request", "function"] = "request") -> Built:
    """The recipe of most tutorials: a dependency that yields, commits, and closes."""
    factory = setup.factory()

    async def get_async_db() -> Any:
        async with factory() as session:
            try:
                yield session
                await session.commit()
            except BaseException:
                await session.rollback()
                raise

    def get_db() -> Any:
        with factory() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise

    get = get_async_db if setup.is_async else get_db
    return Built(FastAPI(), injected(setup, Depends(get, scope=scope)))


def article(setup: Setup) -> Built:
    """The middleware of the article: `BaseHTTPMiddleware` and `request.state.db`."""
    factory = setup.factory()

    async def done(result: Any) -> None:
        if setup.is_async:
            await result

    async def dispatch(request: Request, call_next: Any) -> Response:
        db = request.state.db = factory()
        try:
            response: Response = await call_next(request)
            await done(db.commit())
            return response
        except Exception:
            await done(db.rollback())
            raise
        finally:
            await done(db.close())

    async def get_db(request: Request) -> Any:
        return request.state.db

    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    return Built(app, injected(setup, Depends(get_db)))


def fastapi_sqlalchemy(setup: Setup) -> Built:
    from fastapi_sqlalchemy import DBSessionMiddleware, db

    app, engine = FastAPI(), setup.engine()
    app.add_middleware(DBSessionMiddleware, custom_engine=engine, commit_on_exit=True)
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

    given = {"engine_instance": setup.engine(), "commit_mode": "autocommit"}
    kind: Any = peer.SQLAlchemySyncConfig
    if setup.is_async:
        kind = peer.SQLAlchemyAsyncConfig
        given["session_config"] = peer.AsyncSessionConfig(expire_on_commit=False)
    app = FastAPI()
    alchemy = peer.AdvancedAlchemy(config=kind(**given), app=app)
    return Built(app, injected(setup, Depends(alchemy.provide_session())))


def context(setup: Setup, *, asgi: bool = False) -> Built:
    """With *asgi*, by its pure ASGI middleware, which commits after the response."""
    from context_async_sqlalchemy import DBConnect, db_session, fastapi_utils
    from context_async_sqlalchemy.asgi_utils import ASGIHTTPDBSessionMiddleware

    connect = DBConnect(
        engine_creator=lambda host: setup.engine(),
        session_maker_creator=partial(async_sessionmaker, expire_on_commit=False),
        host=setup.url,
    )

    def wrap(work: Work) -> Endpoint:
        async def endpoint() -> Any:
            return await play(work, await db_session(connect))

        return endpoint

    app = FastAPI()
    if asgi:
        app.add_middleware(ASGIHTTPDBSessionMiddleware)
    else:
        fastapi_utils.add_fastapi_http_db_session_middleware(app)
    return Built(app, wrap)


def fastapi_toolsets(setup: Setup) -> Built:
    from fastapi_toolsets.db import Database

    db = Database(engine=setup.engine())
    app = FastAPI()
    db.install(app)
    return Built(app, injected(setup, Depends(db)))


def quieten_structlog() -> None:
    """Log only warnings, as in production: we do not measure logging."""
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))


with_current = partial(unitwork, current=True)
autocommitting = partial(unitwork, isolation_level="AUTOCOMMIT")
releasing = partial(unitwork, release="statement")
AUTOCOMMIT = "unitwork_autocommit"
STATEMENT = "unitwork_statement"
CONTESTANTS = {
    "limit": Contestant("sessionmaker.begin() inline", limit),
    "plain": Contestant("commit(), close() inline", plain, "async"),
    "bare": Contestant("no middleware", bare),
    "unitwork": Contestant("unitwork, Depends(db.session)", unitwork),
    "unitwork_current": Contestant("unitwork, db.current", with_current),
    AUTOCOMMIT: Contestant('unitwork, isolation_level="AUTOCOMMIT"', autocommitting),
    STATEMENT: Contestant("unitwork, release='statement'", releasing),
    "before": Contestant("before, Depends(db.session)", unitwork),
    "before_current": Contestant("before, db.current", with_current),
    "depends": Contestant("Depends(get_db)", depends),
    "depends_function": Contestant(
        'Depends(get_db, scope="function")', partial(depends, scope="function")
    ),
    "article": Contestant("the article's BaseHTTPMiddleware", article),
    "fastapi_sqlalchemy": Contestant("FastAPI-SQLAlchemy", fastapi_sqlalchemy, "sync"),
    "fastapi_async_sqlalchemy": Contestant(
        "fastapi-async-sqlalchemy", fastapi_async_sqlalchemy, "async"
    ),
    "fastapi_sqla": Contestant("fastapi-sqla", fastapi_sqla),
    "fastsqla": Contestant("FastSQLA", fastsqla, "async"),
    "advanced_alchemy": Contestant("advanced-alchemy", advanced_alchemy),
    "context": Contestant("context-async-sqlalchemy", context, "async"),
    "context_asgi": Contestant(
        "context-async-sqlalchemy, ASGI", partial(context, asgi=True), "async"
    ),
    "fastapi_toolsets": Contestant("fastapi-toolsets", fastapi_toolsets, "async"),
}
STANDARDS = ("limit", "bare")
"""All others are measured against them."""
WITHOUT = ("bare", AUTOCOMMIT, STATEMENT)
IN_TRANSACTIONS = [name for name in CONTESTANTS if name not in WITHOUT]
BEFORE = {"unitwork": "before", "unitwork_current": "before_current"}
"""Their counterparts in an earlier revision; they take part with --before."""
