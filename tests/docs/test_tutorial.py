"""What the tutorial says is so, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import make_url

from follow import follow, fresh_environment
from support.manual import ROOT, Page
from support.pages import postgresql, statements

LAMP = {"name": "lamp", "stock": 2}


def test_its_application_says_what_the_page_says(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite+aiosqlite:///tutorial.db")
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


def test_moves_to_postgresql(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "main", page.module)
    with postgresql("asyncpg") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        main = page.run()
        with TestClient(main.app) as client, statements(main.db.engine) as sent:
            sent.clear()
            client.post("/items/", json=LAMP)

    insert = "VALUES ($1::VARCHAR, $2::INTEGER) RETURNING item.id"
    assert sent == ["BEGIN", f"INSERT INTO item (name, stock) {insert}", "COMMIT"]


def test_works_when_it_is_typed(wheels: Path) -> None:
    """Every file and command in order, on SQLite and then on PostgreSQL."""
    names = ["items"]
    with (
        fresh_environment(sys.executable, wheels) as (home, environment),
        empty_databases(names) as server,
    ):
        written = follow(ROOT / "docs" / "tutorial.md", home, environment | server)

    assert written.count("2 passed") == 2


@contextmanager
def empty_databases(names: list[str]) -> Iterator[dict[str, str]]:
    """Make databases; give the variables by which asyncpg finds the server."""
    url = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    with psycopg.connect(url.render_as_string(False), autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}")
        try:
            yield {
                "PGPORT": str(url.port or 5432),
                "PGUSER": url.username or "",
                "PGPASSWORD": url.password or "",
            }
        finally:
            for name in names:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
