"""Hooks are called, and dropped, as the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from unitwork import UnitOfWork, UsageError
from unitwork._commit import hook_calls
from unitwork._unit import running


@pytest.fixture
def main(page: Page) -> Any:
    """The page, which has stored one order of three lines, and has sent a mail."""
    main = page.run()
    main.sent.clear()
    return main


@pytest.fixture
def client(main: Any) -> Iterator[TestClient]:
    with TestClient(main.app) as client:
        yield client


def test_registers_hooks_anywhere(main: Any, client: TestClient) -> None:
    main.app.post("/orders/{order_id}/close")(main.close_order)

    assert client.post("/orders/1/close").status_code == 200
    assert main.sent == ["cache invalidated"]


def test_checks_before_commit(main: Any, client: TestClient) -> None:
    few = client.post("/orders/1/lines?n=5")
    sent_after_few = list(main.sent)
    many = client.post("/orders/1/lines?n=6")

    assert (few.status_code, sent_after_few) == (200, [])
    assert (many.status_code, many.json()) == (409, {"detail": "too many lines"})
    assert main.sent == ["rolled back"]


def test_opens_a_unit_in_a_hook(main: Any, client: TestClient) -> None:
    assert client.post("/count").status_code == 200
    assert main.sent == [2]


def test_drops_the_hooks_of_a_savepoint(main: Any, client: TestClient) -> None:
    assert client.post("/savepoint").status_code == 200
    assert main.sent == ["outside"]


def test_drops_the_hooks_of_a_rollback_by_hand(main: Any, client: TestClient) -> None:
    first = client.post("/signup?order_id=77").json()
    second = client.post("/signup?order_id=77").json()

    assert (first, second) == ("welcome", "exists already")
    assert main.sent == ["welcome", "not twice"]


def test_calls_hooks_of_a_success_without_work(main: Any, client: TestClient) -> None:
    @main.app.get("/nothing")
    async def nothing() -> None:
        main.current_unit().on_commit(main.sent.append, "success")

    assert client.get("/nothing").status_code == 200
    assert main.sent == ["success"]


def test_refuses_coroutine_functions_in_a_sync_block(main: Any) -> None:
    from unitwork import Database

    db = Database("sqlite://")
    with db.transaction(), pytest.raises(UsageError):
        main.current_unit().on_commit(main.send_mail, 1)
    db.dispose()


def test_lists_every_kind_of_hook(page: Page) -> None:
    page.run()

    names = {*vars(UnitOfWork)} - {"commit_anyway"}
    kinds = {name for name in names if re.match("on_|before_", name)}
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", page.text)) == kinds


def test_says_how_long_hooks_have_after_commit(page: Page) -> None:
    page.run()

    limits = vars(hook_calls)["_LEAST"], vars(running)["_TIME_FOR_HOOKS"]
    assert limits == (0.5, 0.5)
    assert page.text.count("half a second") == len(limits)
