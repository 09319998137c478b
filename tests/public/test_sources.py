"""What the middleware may be given in place of a database."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session
from starlette.requests import Request

from support.asgi import call
from support.engines import make_maker, open_engine, over
from support.flavours import Flavour, Observer, only
from support.lifespan import Life
from support.models import add_item, names
from unitwork import AsyncDatabase, Database, DBSessionMiddleware, UsageError
from unitwork._sources import database_of

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite")


def app_with(flavour: Flavour, db: Any) -> FastAPI:
    """An application that has its sessions at `request.state.db` alone."""
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    @app.post("/")
    async def create(request: Request) -> int:
        item = await flavour.do(request.state.db, add_item)
        return int(await flavour.do(request.state.db, lambda session: item.id))

    return app


def maker_of(flavour: Flavour) -> Any:
    return make_maker(flavour, open_engine(flavour))


async def dispose(flavour: Flavour, given: Any) -> None:
    await over(flavour, getattr(given, "kw", {}).get("bind", given)).dispose()


@pytest.mark.parametrize("make", [maker_of, open_engine])
async def test_a_sessionmaker_or_an_engine_stands_for_a_database(
    flavour: Flavour, observer: Observer, make: Any
) -> None:
    given = make(flavour)
    reply = await call(app_with(flavour, given), "POST", "/")
    await dispose(flavour, given)

    assert reply.status == 200
    assert observer.names() == ["one"]


@one_of_each
@pytest.mark.parametrize("make", [str, make_url])
async def test_a_url_stands_for_a_database(
    flavour: Flavour, observer: Observer, make: Any
) -> None:
    app = app_with(flavour, make(flavour.url))
    life = Life(app)
    await life.start()
    reply = await call(app, "POST", "/")
    await life.stop()

    assert reply.status == 200
    assert observer.names() == ["one"]


@one_of_each
async def test_it_may_stand_beside_a_database(
    flavour: Flavour, observer: Observer, engine: Any
) -> None:
    other = flavour.another(name="other")
    app = app_with(flavour, [engine, other.db])
    app.get("/other")(other.endpoint(names))

    assert (await call(app, "POST", "/")).status == 200
    assert (await call(app, "GET", "/other")).json == ["one"]
    await other.dispose()


@pytest.mark.parametrize("make", [maker_of, open_engine])
@one_of_each
async def test_the_same_object_is_the_same_database(
    flavour: Flavour, make: Any
) -> None:
    given = make(flavour)

    assert database_of(given) is database_of(given)
    assert type(database_of(given)) is type(flavour.db)
    await dispose(flavour, given)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("sqlite://", Database),
        ("sqlite+aiosqlite://", AsyncDatabase),
        ("postgresql+psycopg://h/d", Database),
        ("postgresql+psycopg_async://h/d", AsyncDatabase),
        ("postgresql+asyncpg://h/d", AsyncDatabase),
        ("mysql+pymysql://h/d", Database),
        ("mysql+asyncmy://h/d", AsyncDatabase),
    ],
)
def test_the_driver_in_the_url_decides_between_sync_and_async(
    url: str, kind: type[object]
) -> None:
    assert isinstance(database_of(url), kind)


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (Session(), "give the sessionmaker"),
        (AsyncSession(), "give the sessionmaker"),
        (scoped_session(Session), "give the sessionmaker that is in it"),
        (async_scoped_session(AsyncSession, id), "give the sessionmaker that is in it"),
        (Session, "and not a class"),
        (lambda: None, r"AsyncDatabase\(function\) or Database\(function\)"),
        (None, "give a Database or an AsyncDatabase"),
        ({"url": "sqlite://"}, "give a Database or an AsyncDatabase"),
    ],
)
def test_other_things_are_refused_with_a_remedy(wrong: Any, remedy: str) -> None:
    with pytest.raises(UsageError, match=f"^db is .*{remedy}"):
        DBSessionMiddleware(FastAPI(), wrong)


# The database as a dependency


@one_of_each
async def test_the_database_is_a_dependency_as_well(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    whole, method = Depends(flavour.db), Depends(flavour.db.session)

    @app.get("/")
    async def endpoint(one: Any = whole, other: Any = method) -> bool:
        return one is other is flavour.db.current

    assert (await call(app, "GET", "/")).json is True


@one_of_each
async def test_a_test_may_replace_the_dependency(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.dependency_overrides[flavour.db.session] = lambda: "ours"
    method = Depends(flavour.db.session)

    @app.get("/")
    async def endpoint(given: Any = method) -> str:
        return str(given)

    assert (await call(app, "GET", "/")).json == "ours"
