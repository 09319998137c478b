"""SQLModel's sessions, sync and async."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from sqlmodel import SQLModel

from support.manual import Page

ADA = {"id": 1, "name": "Ada"}
BOB = {"id": 2, "name": "Bob"}


@pytest.fixture(autouse=True)
def _its_one_metadata_is_left_empty() -> Iterator[None]:
    SQLModel.metadata.clear()
    yield
    SQLModel.metadata.clear()


def test_stores_lists_and_deletes(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        assert client.post("/heroes/", json={"name": "Ada"}).json() == ADA
        heroes = client.get("/heroes/").json()
        statuses = [client.delete(f"/heroes/{key}").status_code for key in (1, 9)]
    with TestClient(main.async_app) as client:
        created = client.post("/heroes/", json=BOB)
        others = client.get("/heroes/").json()

    assert (heroes, statuses) == ([ADA], [204, 404])
    assert (created.status_code, others) == (201, [BOB])
