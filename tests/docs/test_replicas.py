"""The page runs on a primary and two replicas."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from servers.postgresql_replication import Replication
from support.manual import Page
from support.replicated import with_driver


@pytest.fixture
def main(page: Page, replication: Replication, monkeypatch: pytest.MonkeyPatch) -> Any:
    replication.primary.execute("DROP TABLE child")  # refers to the page's own table
    replicas = [with_driver(url, "asyncpg") for url in replication.replica_urls]
    monkeypatch.setenv("PRIMARY_URL", with_driver(replication.primary_url, "asyncpg"))
    monkeypatch.setenv("REPLICA_URLS", ",".join(replicas))
    return page.run()


def test_a_client_sees_what_it_has_written(
    client: TestClient, replication: Replication
) -> None:
    for i in range(2):
        replication.pause(i)
    client.post("/items", params={"name": "lamp"})

    assert client.get("/items").json() == ["lamp"]


def test_units_that_only_read_use_a_replica(
    page: Page, main: Any, client: TestClient
) -> None:
    found = client.portal.call(main.where_units_run)

    assert f"This returns `{found}`" in page.text


def test_a_block_sees_what_its_token_is_for(main: Any, client: TestClient) -> None:
    assert client.portal.call(main.write_and_read, "lamp") == ["lamp"]
    assert main.replicas_in_use() == 2
