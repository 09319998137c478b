"""The article's application, before and after: what docs/article.md says is so."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select

from support.manual import Page
from unitwork import SessionEndedError

LAMP = {"name": "lamp", "price": 35.5}
STORED = {**LAMP, "id": 1, "owner_id": 1}


@pytest.fixture
def article(page: Page) -> Iterator[ModuleType]:
    article = page.run()
    yield article
    article.engine.dispose()


def price_after_a_refused_change(app: FastAPI) -> Any:
    client = TestClient(app)
    assert client.post("/items/", json=LAMP).status_code == 201
    assert client.put("/items/1", json={**LAMP, "price": -1}).status_code == 400
    return client.get("/items/1").json()["price"]


def status_of_a_second_lamp(app: FastAPI) -> int:
    client = TestClient(app, raise_server_exceptions=False)
    client.post("/items/", json=LAMP)
    return client.post("/items/", json=LAMP).status_code


@pytest.mark.parametrize("name", ["before", "app", "complete"])
def test_the_five_endpoints_work(article: ModuleType, name: str) -> None:
    client = TestClient(getattr(article, name))
    created = client.post("/items/", json=LAMP)
    changed = client.put("/items/1", json={**LAMP, "price": 40})

    assert (created.status_code, created.json()) == (201, STORED)
    assert changed.json() == {**STORED, "price": 40}
    assert client.get("/items/").json() == [changed.json()]
    assert client.delete("/items/1").status_code == 204
    assert client.get("/items/1").status_code == 404


def test_before_a_400_is_stored(article: ModuleType) -> None:
    assert price_after_a_refused_change(article.before) == -1


def test_after_a_400_is_rolled_back(article: ModuleType) -> None:
    assert price_after_a_refused_change(article.app) == 35.5


@pytest.mark.parametrize(
    ("name", "status"), [("before", 500), ("app", 500), ("complete", 409)]
)
def test_a_second_lamp_is_refused(article: ModuleType, name: str, status: int) -> None:
    assert status_of_a_second_lamp(getattr(article, name)) == status


def test_a_request_without_the_database_makes_a_session_only_before(
    article: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[None] = []
    make = article.SessionLocal.__class__.__call__
    counted = lambda self, **given: made.append(None) or make(self, **given)  # noqa: E731
    monkeypatch.setattr(article.SessionLocal.__class__, "__call__", counted)

    TestClient(article.app).get("/openapi.json")
    after = len(made)
    TestClient(article.before).get("/openapi.json")

    assert (after, len(made)) == (0, 1)


def session_after_the_response(article: ModuleType, app: FastAPI) -> Any:
    kept: list[Any] = []

    @app.get("/keep")
    def keep(session: Any = article.injected) -> int:
        kept.append(session)
        return session.scalar(select(1))

    assert TestClient(app).get("/keep").json() == 1
    return kept[0]


def test_before_a_session_goes_on_after_the_response(article: ModuleType) -> None:
    with session_after_the_response(article, article.before) as session:
        assert session.scalar(select(1)) == 1


def test_after_a_session_ends_with_the_response(article: ModuleType) -> None:
    session = session_after_the_response(article, article.app)

    with pytest.raises(SessionEndedError):
        session.scalar(select(1))
