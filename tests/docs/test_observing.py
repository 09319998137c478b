"""The page on observing does what it says; its tables have every event and metric."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider

from support.manual import Page
from support.page_tables import code_in, rows
from unitwork import AsyncDatabase, events
from unitwork.events import Event, PoolEvent, UnitEvent
from unitwork.telemetry import instrument


@pytest.fixture
def main(page: Page) -> Any:
    return page.run()


class Meter(NoOpMeter):
    """Keeps the names of its instruments."""

    def __init__(self) -> None:
        super().__init__("unitwork")
        self.names: set[str] = set()

    def create_histogram(self, name: str, *args: Any, **options: Any) -> Any:
        self.names.add(name)
        return super().create_histogram(name, *args, **options)

    def create_counter(self, name: str, *args: Any, **options: Any) -> Any:
        self.names.add(name)
        return super().create_counter(name, *args, **options)

    def create_observable_up_down_counter(self, name: str, *args: Any) -> Any:
        self.names.add(name)
        return super().create_observable_up_down_counter(name, *args)


class Meters(NoOpMeterProvider):
    def __init__(self) -> None:
        self.meter = Meter()

    def get_meter(self, *args: Any, **options: Any) -> Meter:
        return self.meter


def listed(page: Page, header: str) -> set[str]:
    return {name for row in rows(page.text, header) for name in code_in(row[0])}


def test_records_the_end_of_a_request(main: Any) -> None:
    assert main.ends.lines == ["GET /items/{item_id}: committed, status 200"]


def test_shows_the_times_to_local_clients_only(main: Any) -> None:
    main.timed.get("/")(main.read_item)

    with TestClient(main.timed, client=("127.0.0.1", 1)) as local:
        assert "db-sql" in local.get("/?item_id=1").headers["server-timing"]
    with TestClient(main.timed) as other:
        assert "server-timing" not in other.get("/?item_id=1").headers


def test_its_table_has_every_event(page: Page) -> None:
    page.run()
    kinds = [getattr(events, name) for name in events.__all__]
    bases = (Event, PoolEvent, UnitEvent)
    concrete = {
        kind.__name__
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Event) and kind not in bases
    }

    assert listed(page, "event") == concrete


def test_its_table_has_every_metric(page: Page) -> None:
    page.run()
    instrument(AsyncDatabase("sqlite+aiosqlite://"), meter_provider=(given := Meters()))

    assert listed(page, "metric") == given.meter.names
