"""What the tutorial says is so, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sys

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from support.pages import postgresql, run_tests, statements

LAMP = {"name": "lamp", "stock": 2}


def test_its_application_says_what_the_page_says(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = page.run(up_to="Test it")
    monkeypatch.setitem(sys.modules, "main", main)

    with TestClient(main.app) as client, statements(main.db.engine) as sent:
        sent.clear()
        created = client.post("/items/", json=LAMP)
        begin, insert, commit = sent
        sent.clear()
        sold = client.post("/items/1/sell?count=3")
        verbs = [sql.split()[0] for sql in sent]
        [lamp] = client.get("/items/").json()
        again = client.post("/items/", json=LAMP)

    assert (created.status_code, created.json()) == (201, {**LAMP, "id": 1})
    assert (begin, commit) == ("BEGIN IMMEDIATE", "COMMIT")
    assert insert == "INSERT INTO item (name, stock) VALUES (?, ?)"
    assert (sold.status_code, lamp["stock"], again.status_code) == (409, 2, 409)
    assert verbs == ["BEGIN", "SELECT", "UPDATE", "ROLLBACK"]
    page.run()


def test_its_tests_pass_on_sqlite(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "main", page.module)
    page.run()
    page.write_files()

    assert "2 passed" in run_tests(DATABASE_URL="sqlite+aiosqlite:///test.db")


def test_moves_to_postgresql(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "main", page.module)
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        main = page.run()
        page.write_files()
        said = run_tests()
        with TestClient(main.app) as client, statements(main.db.engine) as sent:
            sent.clear()
            client.post("/items/", json=LAMP)

    insert = "VALUES ($1::VARCHAR, $2::INTEGER) RETURNING item.id"
    assert "2 passed" in said
    assert sent == ["BEGIN", f"INSERT INTO item (name, stock) {insert}", "COMMIT"]
