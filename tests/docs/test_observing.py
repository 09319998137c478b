"""The page on observing does what it says, and its table has every event."""

from __future__ import annotations

from typing import Any

import pytest

from support.manual import Page
from support.page_tables import code_in, rows
from unitwork import events
from unitwork.events import Event, PoolEvent, UnitEvent


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


def test_records_the_end_of_a_request(main: Any) -> None:
    assert main.ends.lines == ["GET /items/{item_id}: committed, status 200"]


def test_its_table_has_every_event_and_its_fields(page: Page) -> None:
    page.run()
    listed = {name for row in rows(page.text, "event") for name in code_in(row[0])}
    kinds = [getattr(events, name) for name in events.__all__]
    bases = (Event, PoolEvent, UnitEvent)
    concrete = {
        kind.__name__
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Event) and kind not in bases
    }

    assert listed == concrete
