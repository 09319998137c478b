"""What observing costs: microseconds of CPU for the events of one unit, side by side.

    python -m benchmarks.events [--units 20000]

The events are those of a request with one statement, from its begin to its last byte,
and of the pool that it uses; no database takes part, whose noise would be larger. The
minimum of five rounds is shown. "Off" is what a unit pays without any observer: the
checks. "Metrics, no SDK" is the part of unitwork alone, before an SDK is set; "metrics"
and "spans" have OpenTelemetry's SDK, which exports nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from unitwork import AsyncDatabase, Outcome
from unitwork._engine.pool_watch import WatchedPool
from unitwork._observing.hold_report import HoldReport
from unitwork._observing.registry import observing
from unitwork._observing.subjects import UnitInfo
from unitwork._observing.unit_report import UnitReport, next_unit_id
from unitwork._unit.database_base import core_of
from unitwork.events import (
    ConnectionUse,
    Event,
    ResponseCompleted,
    ResponseStarted,
    UnitBegun,
    UnitEnded,
    UnitSettled,
)
from unitwork.inspector import Inspector
from unitwork.telemetry import instrument

CHECKS = 11  # of `report is not None`, in the life of a unit with one statement
USE = ConnectionUse(1, 0.002, 0.001, 0.001)


class Nothing:
    """An observer that does nothing."""

    def on_event(self, event: Event) -> None:
        pass


class Context:
    """That of a statement, as far as it is looked at."""

    execution_options: ClassVar[dict[str, object]] = {}


class Record:
    record_info: dict[str, float]

    def __init__(self) -> None:
        self.record_info = {}


class Unit:
    """One that is not observed, as far as the checks look at it."""

    report: object = None


def ways() -> Iterator[tuple[str, Callable[[AsyncDatabase], object]]]:
    meters = MeterProvider([InMemoryMetricReader()])
    tracers: Any = TracerProvider()
    yield "the end only", lambda db: db.observe(Nothing(), only=[UnitEnded])
    yield "every event", lambda db: db.observe(Nothing())
    yield "the inspector", Inspector
    yield (
        "metrics, no SDK",
        lambda db: instrument(db, tracing=False),
    )
    yield (
        "metrics",
        lambda db: instrument(db, tracing=False, meter_provider=meters),
    )
    yield "spans", lambda db: instrument(db, metrics=False, tracer_provider=tracers)


def one_unit(db: AsyncDatabase, pool: WatchedPool, record: Record) -> None:
    """Report all that happens in one unit."""
    audience = core_of(db).observers.audience
    assert audience is not None
    unit = UnitInfo(
        next_unit_id(),
        "request",
        ("default",),
        None,
        1,
        "GET",
        "/items/7",
        "/items/{id}",
        time.time(),
        time.monotonic(),
    )
    report = UnitReport(unit, audience, lambda: "/items/{id}")
    report.emit(UnitBegun)
    with report.waiting("default", "default"):
        pool.checkout(None, record, None)
    hold = HoldReport(report, "default", "default")
    hold.taken(None)
    hold.begun(0.001)
    hold.executed(0.001, Context, "SELECT 1")
    hold.commit(int)
    hold.returned(0.002, 0.001)
    pool.checkin(None, record)
    report.emit(UnitSettled, Outcome.COMMITTED, "status 200", None)
    report.emit(ResponseStarted, 200)
    report.emit(UnitEnded, Outcome.COMMITTED, "status 200", None, 0.003, USE)
    report.emit(ResponseCompleted, True)


def off() -> Callable[[], None]:
    """The checks of a unit that is not observed, one after the other as they are."""
    source = "\n".join(
        [
            "def checks():",
            "    if observing.is_on: raise AssertionError",
            *["    if unit.report is not None: raise AssertionError"] * CHECKS,
        ]
    )
    found: dict[str, Any] = {"observing": observing, "unit": Unit}
    exec(source, found)
    checks: Callable[[], None] = found["checks"]
    return checks


def microseconds(call: Callable[[], object], units: int) -> float:
    """The CPU that one *call* takes: the minimum of five rounds."""
    found = []
    for _ in range(5):
        before = time.process_time()
        for _ in range(units):
            call()
        found.append((time.process_time() - before) / units * 1e6)
    return min(found)


def measure(units: int) -> dict[str, float]:
    empty = microseconds(lambda: None, units)
    found = {"off": microseconds(off(), units) - empty}
    for name, start in ways():
        db = AsyncDatabase("sqlite+aiosqlite://")
        start(db)
        pool, record = WatchedPool(), Record()
        pool.report_to("default", "default", core_of(db).observers)
        core_of(db).observers.require_reports()
        found[name] = microseconds(lambda: one_unit(db, pool, record), units)  # noqa: B023  # it is called here
        sys.stderr.write(f"{name}: done\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_000)
    found = measure(parser.parse_args().units)
    print("| observers | µs a unit |\n|---|---|")
    for name, each in found.items():
        print(f"| {name} | {each:.2f} |")


if __name__ == "__main__":
    main()
