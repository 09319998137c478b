"""The session and the `crud` functions of the Full Stack FastAPI Template."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import SQLModel, select

from support.manual import Page


@pytest.fixture(autouse=True)
def _its_one_metadata_is_left_empty() -> Iterator[None]:
    SQLModel.metadata.clear()
    yield
    SQLModel.metadata.clear()


def post(main: Any, title: str) -> int:
    with TestClient(main.app) as client:
        return client.post("/items/", json={"title": title}).status_code


def titles(main: Any) -> list[str]:
    with main.Session(main.engine) as session:
        return list(session.exec(select(main.Item.title)))


def test_a_refused_item_is_no_longer_stored(page: Page) -> None:
    before = page.run(up_to="After")
    assert [post(before, "lamp"), post(before, "")] == [200, 400]
    assert titles(before) == ["lamp", ""]

    after = page.run(up_to="Scripts and tests")
    assert [post(after, "table"), post(after, "")] == [200, 400]
    assert titles(after) == ["lamp", "", "table"]

    after = page.run()
    after.init()
    assert titles(after)[-1] == "the first"
    check_the_fixture(after)
    after.engine.dispose()


def check_the_fixture(main: Any) -> None:
    with contextmanager(main.db_fixture)() as session:
        main.create_item(session, main.Item(title="arranged"))
        assert post(main, "lamp") == 200
        assert list(session.exec(select(main.Item.title)))[-2:] == ["arranged", "lamp"]
