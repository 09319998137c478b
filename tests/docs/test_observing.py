"""The page on observing does what it says."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


def test_records_the_end_of_a_request(main: Any) -> None:
    assert main.ends.lines == ["GET /items/{item_id}: committed, status 200"]


def test_shows_the_times_to_local_clients_only(main: Any) -> None:
    main.timed.get("/")(main.read_item)

    with TestClient(main.timed, client=("127.0.0.1", 1)) as local:
        assert "db-sql" in local.get("/?item_id=1").headers["server-timing"]
    with TestClient(main.timed) as other:
        assert "server-timing" not in other.get("/?item_id=1").headers
