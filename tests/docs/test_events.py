"""The tables of the page on events and metrics have all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from opentelemetry.metrics import NoOpMeter, NoOpMeterProvider

from support.manual import page_of
from support.page_tables import code_in, rows
from unitwork import AsyncDatabase, events
from unitwork.events import Event, PoolEvent, UnitEvent
from unitwork.telemetry import instrument

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")


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


def listed(header: str) -> set[str]:
    return {name for row in rows(TEXT, header) for name in code_in(row[0])}


def test_its_table_has_every_event() -> None:
    kinds = [getattr(events, name) for name in events.__all__]
    bases = (Event, PoolEvent, UnitEvent)
    concrete = {
        kind.__name__
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, Event) and kind not in bases
    }

    assert listed("event") == concrete


def test_its_table_has_every_metric() -> None:
    instrument(AsyncDatabase("sqlite+aiosqlite://"), meter_provider=(given := Meters()))

    assert listed("metric") == given.meter.names
