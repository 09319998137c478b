"""What mypy and pyright know of the two databases; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import assert_type

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlmodel import Session as SQLModelSession
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession
from starlette.requests import Request

from unitwork import (
    AsyncDatabase,
    ConnectionLimit,
    Database,
    DatabaseSettings,
    PoolStatus,
    connection_limit,
)

sync_url = "sqlite://"
async_url = "sqlite+aiosqlite://"


class OurSession(Session): ...


class OurAsyncSession(AsyncSession): ...


def late_engine() -> Engine:
    return create_engine(sync_url)


def late_async_engine() -> AsyncEngine:
    return create_async_engine(async_url)


def late_maker() -> sessionmaker[OurSession]:
    return sessionmaker(create_engine(sync_url), class_=OurSession)


def late_async_maker() -> async_sessionmaker[OurAsyncSession]:
    return async_sessionmaker(create_async_engine(async_url), class_=OurAsyncSession)


# The kind of session follows from what the database is made of

assert_type(Database(sync_url), Database[Session])
assert_type(Database(make_url(sync_url)), Database[Session])
assert_type(Database(URL.create("sqlite")), Database[Session])
assert_type(Database(create_engine(sync_url)), Database[Session])
assert_type(Database(late_engine), Database[Session])
assert_type(Database(sessionmaker(create_engine(sync_url))), Database[Session])
assert_type(Database(late_maker()), Database[OurSession])
assert_type(Database(late_maker), Database[OurSession])
assert_type(Database(sync_url, session_class=OurSession), Database[OurSession])
assert_type(Database(late_engine, session_class=OurSession), Database[OurSession])
assert_type(
    Database(sync_url, session_class=SQLModelSession), Database[SQLModelSession]
)

assert_type(AsyncDatabase(async_url), AsyncDatabase[AsyncSession])
assert_type(AsyncDatabase(make_url(async_url)), AsyncDatabase[AsyncSession])
assert_type(AsyncDatabase(create_async_engine(async_url)), AsyncDatabase[AsyncSession])
assert_type(AsyncDatabase(late_async_engine), AsyncDatabase[AsyncSession])
assert_type(AsyncDatabase(late_async_maker()), AsyncDatabase[OurAsyncSession])
assert_type(AsyncDatabase(late_async_maker), AsyncDatabase[OurAsyncSession])
assert_type(
    AsyncDatabase(async_sessionmaker(create_async_engine(async_url))),
    AsyncDatabase[AsyncSession],
)
assert_type(
    AsyncDatabase(late_async_engine, session_class=OurAsyncSession),
    AsyncDatabase[OurAsyncSession],
)
models = AsyncDatabase(async_url, session_class=SQLModelAsyncSession)
assert_type(models, AsyncDatabase[SQLModelAsyncSession])

# Options

Database(
    sync_url,
    name="reports",
    session_options={"autoflush": False},
    settings=DatabaseSettings(commit_timeout=None),
    pool_size=5,
    echo=True,
)
AsyncDatabase(async_url, name="reports", session_options={"info": {}}, pool_size=5)
Database(late_maker(), name="a", session_options={}, settings=DatabaseSettings())

# What can't be

Database()  # type: ignore[call-overload]
Database(42)  # type: ignore[call-overload]
Database(create_async_engine(async_url))  # type: ignore[call-overload]
Database(late_maker(), pool_size=5)  # type: ignore[arg-type]
Database(late_maker(), session_class=OurSession)  # type: ignore[arg-type]
Database(sync_url, session_class=AsyncSession)  # type: ignore[type-var]
Database(sync_url, settings={})  # type: ignore[call-overload]
AsyncDatabase(create_engine(async_url))  # type: ignore[call-overload]
AsyncDatabase(async_url, session_class=Session)  # type: ignore[type-var]
AsyncDatabase(async_url, session_class=OurAsyncSession, name=1)  # type: ignore[call-overload]


# What they give

db = Database(late_maker)


def use(db: Database[OurSession]) -> None:
    assert_type(db.engine, Engine)
    assert_type(db.name, str)
    assert_type(db.settings, DatabaseSettings)
    assert_type(db.current, OurSession)
    assert_type(db.pool_status(), PoolStatus)
    assert_type(db.dispose(), None)
    assert_type(db.ping(), None)
    assert_type(db.ping(timeout=0.5), None)
    with db.transaction() as session:
        assert_type(session, OurSession)
    for_all = (
        db.transaction(nested="own"),
        db.transaction(nested="join"),
        db.transaction(nested="savepoint"),
    )
    for block in for_all:
        with block as session:
            assert_type(session, OurSession)
    with db.override(Session()):
        pass

    db.transaction(nested="yes")  # type: ignore[arg-type]
    db.transaction("own")  # type: ignore[call-arg]
    db.override(AsyncSession())  # type: ignore[arg-type]
    db.name = "other"  # type: ignore[misc]
    db.settings = DatabaseSettings()  # type: ignore[misc]


async def use_async(
    db: Database[OurSession], async_db: AsyncDatabase[OurAsyncSession], request: Request
) -> None:
    assert_type(await db.session(), OurSession)
    assert_type(await db.session(request), OurSession)
    assert_type(await async_db.session(), OurAsyncSession)
    assert_type(await async_db(), OurAsyncSession)
    assert_type(await db(), OurSession)
    assert_type(await async_db.session(request), OurAsyncSession)
    assert_type(async_db.engine, AsyncEngine)
    assert_type(async_db.current, OurAsyncSession)
    assert_type(async_db.pool_status(), PoolStatus)
    assert_type(await async_db.dispose(), None)
    assert_type(await async_db.ping(timeout=0.5), None)
    async with async_db.transaction() as session:
        assert_type(session, OurAsyncSession)
    async with async_db.transaction(nested="savepoint") as session:
        assert_type(session, OurAsyncSession)
    with async_db.override(AsyncSession()):
        pass

    async_db.transaction(nested="yes")  # type: ignore[arg-type]
    async_db.override(Session())  # type: ignore[arg-type]
    with async_db.transaction():  # type: ignore[attr-defined]
        pass
    async with db.transaction():  # type: ignore[attr-defined]
        pass


status = PoolStatus(size=None, checked_out=1, idle=2, waiting=3)
assert_type(status.size, int | None)
assert_type(status.checked_out, int)
assert_type(status.idle, int)
assert_type(status.waiting, int)

# Without parameters they are of SQLAlchemy's own session


def default(db: Database, async_db: AsyncDatabase) -> None:
    assert_type(db.current, Session)
    assert_type(async_db.current, AsyncSession)


# Settings

settings = DatabaseSettings(commit_timeout=1, end_timeout=0.5, check_at_startup=True)
DatabaseSettings(slow_unit_warning=0.5)
DatabaseSettings(hold_warning=None, idle_limit=30)
assert_type(settings.commit_timeout, float | None)
assert_type(settings.end_timeout, float)
assert_type(settings.drain_timeout, float)
assert_type(settings.check_at_startup, bool)
assert_type(settings.sqlite_defaults, bool)
settings.end_timeout = 1  # type: ignore[misc]
DatabaseSettings(1.0)  # type: ignore[call-arg]
DatabaseSettings(end_timeout=None)  # type: ignore[arg-type]


# Limits of the server


async def limits(session: Session, async_session: AsyncSession) -> None:
    assert_type(connection_limit(session), ConnectionLimit)
    assert_type(connection_limit(session.connection()), ConnectionLimit)
    limit = await async_session.run_sync(connection_limit)
    assert_type(limit, ConnectionLimit)
    assert_type(limit.allowed, int)
    assert_type(limit.in_use, int)
    assert_type(limit.processes(status), int)
    connection_limit(async_session)  # type: ignore[arg-type]


assert_type(Database(sync_url, release="statement"), Database[Session])
AsyncDatabase(async_url, release="each")  # type: ignore[call-overload]
