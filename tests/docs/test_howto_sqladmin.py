"""The real sqladmin beside an application."""

from __future__ import annotations

from fastapi.testclient import TestClient

from support.manual import Page


def test_the_panel_stores_what_the_application_lists(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        client.post("/admin/item/create", data={"name": "lamp"})
        names = client.get("/items/").json()
        panel = client.get("/admin/item/list").text

    assert names == ["lamp"]
    assert "lamp" in panel
