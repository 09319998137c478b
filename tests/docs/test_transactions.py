"""Units of scripts, background tasks, WebSockets, and of tasks side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from support.pages import statements


@pytest.fixture
def main(page: Page) -> Any:
    """The page; its script has imported a lamp and a table."""
    return page.run()


def test_stores_what_the_script_imports(
    client: TestClient, stored: Callable[[], list[str]]
) -> None:
    assert stored() == ["lamp", "table"]


def test_sends_what_the_page_shows(page: Page, main: Any, client: TestClient) -> None:
    with statements(main.db.engine) as sent:
        client.portal.call(main.import_items, "lamp", "table")

    [shown] = re.findall(r"(?s)```sql\n(.*?)```", page.text)
    bare = [sql.removesuffix(" RETURNING id") for sql in sent]
    assert bare == re.sub("'.*'", "?", shown).splitlines()


def test_has_a_unit_in_a_background_task(
    client: TestClient, stored: Callable[[], list[str]]
) -> None:
    client.post("/restock")

    assert stored() == ["lamp", "table", "chair"]


def test_commits_a_message_before_it_is_sent(
    main: Any, client: TestClient, stored: Callable[[], list[str]]
) -> None:
    with client.websocket_connect("/items") as websocket:
        websocket.send_text("sofa")
        assert websocket.receive_text() == "stored sofa"
        assert stored()[-1] == "sofa"
        assert main.db.pool_status().checked_out == 0


def test_sends_from_two_tasks(client: TestClient) -> None:
    with client.websocket_connect("/ticking") as websocket:
        assert websocket.receive_text() == "tick"


def test_commits_a_block_although_its_request_is_rolled_back(
    main: Any, client: TestClient, stored: Callable[[], list[str]]
) -> None:
    @main.app.post("/audited")
    async def audited() -> None:
        await main.restock("audit record")
        main.db.current.add(main.Item(name="dropped"))
        raise ValueError

    assert client.post("/audited").status_code == 500
    assert stored()[-1] == "audit record"


def test_counts_side_by_side(client: TestClient) -> None:
    assert client.get("/counts").json() == [2, 2, 2]
