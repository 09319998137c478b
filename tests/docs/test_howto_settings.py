"""Settings from the environment."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from support.manual import Page
from unitwork import UsageError


def test_settings_have_defaults(page: Page) -> None:
    main = page.run()

    assert str(main.db.engine.url) == "sqlite+aiosqlite:///items.db"
    with TestClient(main.app):
        assert main.db.pool_status().checked_out == 0


def test_variables_set_what_differs(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in page.text.splitlines() if "export APP" in line]
    for line in lines:
        monkeypatch.setenv(*line.removeprefix("$ export ").split("=", 1))

    main = page.run()

    assert len(lines) == 4
    assert main.db.engine.url.host == "db.internal"
    assert main.db.engine.url.password == "secret"
    assert main.db.engine.sync_engine.pool.size() == 10
    assert main.settings.database.commit_timeout == 30
    assert main.settings.database.check_at_startup
    assert "secret" not in repr(main.settings)


def test_a_file_sets_them_as_well(page: Page) -> None:
    with open(".env", "w") as file:  # noqa: PTH123  # in the folder of the page
        file.write("APP_ECHO=true\n")

    assert page.run().settings.echo


def test_a_wrong_value_stops_the_start(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_DATABASE__COMMIT_TIMEOUT", "-1")

    with pytest.raises(UsageError) as caught:
        page.run()

    monkeypatch.delenv("APP_DATABASE__COMMIT_TIMEOUT")
    page.run()
    assert str(caught.value) in " ".join(page.text.split())
