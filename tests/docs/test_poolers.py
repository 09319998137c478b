"""PgBouncer: one setting for both drivers."""

from __future__ import annotations

from typing import Any

import pytest

from support.manual import Page


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


@pytest.mark.parametrize("name", ["db", "sync_db"])
def test_nothing_is_prepared_beyond_a_transaction(main: Any, name: str) -> None:
    options: dict[str, Any] = {}
    dialect = getattr(main, name).engine.dialect

    for listener in dialect.dispatch.do_connect:
        listener(dialect, None, [], options)

    assert {"statement_cache_size": 0, "prepare_threshold": None}.items() & (
        options.items()
    )
