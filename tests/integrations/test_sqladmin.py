"""sqladmin on `db.engine`, beside the units of an application."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqladmin import Admin, ModelView

from support.flavours import Flavour, Observer
from support.models import Item, add_item, names
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio


class ItemAdmin(ModelView, model=Item):
    column_list = ["id", "name"]  # noqa: RUF012  # sqladmin's own way


@pytest.fixture
def app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    Admin(app, flavour.db.engine).add_view(ItemAdmin)
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    return app


def browser(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")


async def test_what_the_panel_creates_is_stored(
    flavour: Flavour, app: FastAPI, observer: Observer
) -> None:
    async with browser(app) as client:
        created = await client.post("/admin/item/create", data={"name": "by hand"})
        listed = await client.get("/admin/item/list")

    assert created.status_code == 302
    assert "by hand" in listed.text
    assert observer.names() == ["by hand"]


async def test_the_panel_does_not_wait_for_a_unit_that_writes(
    flavour: Flavour, app: FastAPI
) -> None:
    async with browser(app) as client, flavour.block() as session:
        await flavour.do(session, add_item)
        async with asyncio.timeout(4):  # SQLite waits for a lock for 5 seconds
            listed = await client.get("/admin/item/list")

    assert listed.status_code == 200
    assert await flavour.work(names) == ["one"]
