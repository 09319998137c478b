"""The items application tests itself with the test kit, in both modes."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi.testclient import TestClient

from unitwork._real_databases.pools import close_pools
from unitwork.testing import assert_committed, assert_rolled_back, sandbox

LAMP = {"name": "Lamp", "price": 35.5, "tax": 3.25, "owner_id": 1}
BOTH_MODES = pytest.mark.parametrize("real", [False, True], ids=["sandbox", "real"])


class Items(NamedTuple):
    app: Any
    db: Any
    metadata: Any


@pytest.fixture
def items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A copy of the application of its own."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/items.db")
    for module in [each for each in sys.modules if each.startswith("examples.")]:
        monkeypatch.delitem(sys.modules, module)
    app, models = (
        import_module(f"examples.items.{name}") for name in ("app", "models")
    )
    yield Items(app.app, app.db, models.Base.metadata)
    close_pools()


@BOTH_MODES
def test_what_a_test_stores_is_not_there_for_the_next(items: Items, real: bool) -> None:
    with TestClient(items.app) as client:
        for _ in range(2):
            with sandbox(items.db, real=real, schema=items.metadata):
                with assert_committed(items.db):
                    assert client.post("/items/", json=LAMP).status_code == 201
                assert len(client.get("/items/").json()) == 1


@BOTH_MODES
def test_an_item_of_nobody_is_refused(items: Items, real: bool) -> None:
    with (
        TestClient(items.app) as client,
        sandbox(items.db, real=real, schema=items.metadata),
    ):
        with assert_rolled_back():
            refused = client.post("/items/", json={**LAMP, "owner_id": 99})

        assert refused.status_code >= 400
        assert client.get("/items/").json() == []
