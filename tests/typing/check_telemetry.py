"""What mypy and pyright know of telemetry; never run."""

from collections.abc import Callable
from typing import assert_type

from opentelemetry.metrics import get_meter_provider
from opentelemetry.trace import get_tracer_provider

from unitwork import AsyncDatabase, Database
from unitwork.telemetry import instrument

db = Database("sqlite://")
async_db = AsyncDatabase("sqlite+aiosqlite://")

assert_type(instrument(db, async_db), Callable[[], None])
instrument(db, tracing=False, meter_provider=get_meter_provider())
instrument(db, metrics=False, tracer_provider=get_tracer_provider(), span_above=1.0)
instrument("sqlite://")  # type: ignore[arg-type]
