"""MariaDB Galera: URLs with several hosts."""

from __future__ import annotations

from typing import Any

import pytest

from support.manual import Page


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


@pytest.mark.parametrize("name", ["async_db", "db", "causal_db"])
def test_the_engine_has_the_first_host(main: Any, name: str) -> None:
    url = getattr(main, name).engine.url

    assert (url.host, url.port, url.query) == ("db1", 3306, {})
