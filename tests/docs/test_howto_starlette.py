"""Starlette without FastAPI."""

from __future__ import annotations

from starlette.testclient import TestClient

from support.manual import Page
from support.pages import statements


def test_commits_and_answers_a_commit_that_fails(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client, statements(main.db.engine) as sent:
        created, again = (client.post("/items/", json="lamp") for _ in range(2))
        names = client.get("/items/").json()
    with TestClient(main.sync_app) as client:
        count = client.get("/count").json()

    assert (created.status_code, again.status_code) == (201, 409)
    assert (names, count) == (["lamp"], 1)
    assert "ROLLBACK" in sent
