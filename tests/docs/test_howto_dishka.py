"""The real dishka: its container provides the session of the request."""

from __future__ import annotations

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError

from support.manual import Page
from support.pages import statements
from unitwork.testing import commit_faults


def test_the_middleware_commits(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client, statements(main.db.engine) as sent:
        created = client.post("/items/?name=lamp")
        client.portal.call(main.import_items, "chair", "table")
        names = client.get("/items/").json()

    assert created.status_code == 201
    assert names == ["lamp", "chair", "table"]
    assert sent.count("COMMIT") == 3  # two units that write, and one that reads


def test_a_commit_that_fails_is_no_success(page: Page) -> None:
    main = page.run()
    fault = IntegrityError("COMMIT", None, Exception("deferred"))

    with TestClient(main.app, raise_server_exceptions=False) as client:
        with commit_faults(main.db, fault):
            assert client.post("/items/?name=lamp").status_code == 500
        assert client.get("/items/").json() == []


def test_an_error_response_rolls_back(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = page.run()
    add = main.Items.add

    def refuse(items: object, name: str) -> None:
        add(items, name)
        raise HTTPException(400)

    monkeypatch.setattr(main.Items, "add", refuse)
    with TestClient(main.app) as client:
        assert client.post("/items/?name=lamp").status_code == 400
        assert client.get("/items/").json() == []
