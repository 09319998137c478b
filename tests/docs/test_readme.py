"""What README.md says of its application is so."""

from __future__ import annotations

from fastapi.testclient import TestClient

from support.manual import Page
from support.pages import statements


def test_commits_before_it_answers(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client, statements(main.db.engine) as sent:
        sent.clear()
        reply = client.post("/items/?name=lamp")

    assert (reply.status_code, reply.json()) == (201, 1)
    assert sent == ["BEGIN IMMEDIATE", "INSERT INTO item (name) VALUES (?)", "COMMIT"]
