"""What the article promises works as it is written there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import Request

from support.article import application
from support.asgi import call
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import BlockingSessionWarning, Database, DBSessionMiddleware

pytestmark = pytest.mark.anyio


def get_session_from_middleware(request: Request) -> Any:
    return request.state.db


given = Depends(get_session_from_middleware)


async def check_creates_a_lamp(app: FastAPI, observer: Observer) -> None:
    reply = await call(app, "POST", "/items/?name=lamp")

    assert (reply.status, reply.json) == (200, {"id": 1, "name": "lamp"})
    assert observer.names() == ["lamp"]


@only(*SYNC)
async def test_a_sync_session_by_the_articles_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/items/")
    def create_item(name: str, session: Session = given) -> dict[str, Any]:
        item = Item(name=name)
        session.add(item)
        session.flush()
        return {"id": item.id, "name": item.name}

    await check_creates_a_lamp(app, observer)


@only(*ASYNC)
async def test_an_async_session_by_the_articles_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/items/")
    async def create_item(name: str, session: AsyncSession = given) -> dict[str, Any]:
        item = Item(name=name)
        session.add(item)
        await session.flush()
        return {"id": item.id, "name": item.name}

    await check_creates_a_lamp(app, observer)


@only(*ASYNC)
async def test_the_session_of_the_state_without_any_dependency(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/items/")
    async def create_item(request: Request) -> None:
        request.state.db.add(Item(name="lamp"))

    assert (await call(app, "POST", "/items/")).status == 200
    assert observer.names() == ["lamp"]


@only(*SYNC)
async def test_a_sync_session_in_async_endpoints_works_and_warns_once(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)
    given = Depends(get_session_from_middleware)

    @app.post("/")
    async def create_item(name: str, session: Session = given) -> None:
        add_item(session, name)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("one", "two", "three"):
            assert (await call(app, "POST", f"/?name={name}")).status == 200

    assert [warning.category for warning in caught] == [BlockingSessionWarning]
    assert caught[0].filename.endswith("models.py")  # where the session is used
    assert observer.names() == ["one", "two", "three"]


@only(*SYNC)
async def test_a_sync_session_in_async_endpoints_rolls_back_too(
    flavour: Flavour, observer: Observer
) -> None:
    app = application(flavour)

    @app.post("/")
    async def create_item(request: Request) -> None:
        add_item(request.state.db)
        raise LookupError

    with pytest.warns(BlockingSessionWarning, match="event loop's own thread"):
        reply = await call(app, "POST", "/")

    assert (reply.status, type(reply.error)) == (500, LookupError)
    assert observer.names() == []


@only(*SYNC)
async def test_a_sync_session_in_plain_endpoints_does_not_warn(
    flavour: Flavour,
) -> None:
    app = application(flavour)
    app.post("/")(flavour.endpoint(lambda session: add_item(session).id))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reply = await call(app, "POST", "/")

    assert (reply.status, reply.error) == (200, None)


def test_the_article_by_the_test_client(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/items.db")
    Item.metadata.create_all(db.engine)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)
    injected = Depends(db.session)

    @app.post("/items/")
    def create_item(name: str, request: Request) -> None:
        request.state.db.add(Item(name=name))

    @app.get("/items/")
    def list_items(session: Session = injected) -> list[str]:
        return names(session)

    with TestClient(app) as client:
        for name in ("one", "two"):
            assert client.post(f"/items/?name={name}").status_code == 200
        assert client.get("/items/").json() == ["one", "two"]
