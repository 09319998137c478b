"""context-async-sqlalchemy, before and after."""

from __future__ import annotations

from support.manual import Page
from support.migrated import send_items


def test_does_the_same_by_other_names(page: Page) -> None:
    before = page.run(up_to="After")
    assert send_items(before.app) == ([201, 400], ["lamp"])

    after = page.run()
    assert send_items(after.app) == ([201, 400], ["lamp", "lamp"])
