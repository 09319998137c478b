"""The real sqladmin beside an application."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.testclient import TestClient
from sqladmin import Admin
from sqladmin.authentication import AuthenticationBackend
from sqlalchemy import func, select

from support.manual import Page

LAMP = {"name": "lamp"}


def test_the_panel_stores_what_the_application_lists(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        client.post("/admin/item/create", data=LAMP)
        names = client.get("/items/").json()
        panel = client.get("/admin/item/list").text

    assert names == ["lamp"]
    assert "lamp" in panel


def test_a_method_of_a_view_opens_a_unit(page: Page, monkeypatch: Any) -> None:
    main = page.run()

    async def copy(view: Any, data: Any, item: Any, new: bool, request: Any) -> None:
        async with main.db.transaction() as session:
            session.add(main.Item(name=f"a copy of {item.name}"))

    monkeypatch.setattr(main.ItemAdmin, "after_model_change", copy)
    with TestClient(main.app) as client:
        client.post("/admin/item/create", data=LAMP)
        names = client.get("/items/").json()

    assert names == ["lamp", "a copy of lamp"]


def test_a_login_has_the_session_of_the_request(page: Page) -> None:
    main = page.run()

    class Login(AuthenticationBackend):
        async def authenticate(self, request: Request) -> bool:
            return bool(await main.db.current.scalar(select(func.count(main.Item.id))))

    guarded = Admin(
        main.app,
        main.db.engine,
        base_url="/guarded",
        authentication_backend=Login("secret"),
    )
    guarded.add_view(main.ItemAdmin)
    with TestClient(main.app) as client:
        before = client.get("/guarded/item/list", follow_redirects=False)
        client.post("/admin/item/create", data=LAMP)
        after = client.get("/guarded/item/list", follow_redirects=False)

    assert (before.status_code, after.status_code) == (302, 200)
