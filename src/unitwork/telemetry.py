"""OpenTelemetry: `instrument(db)` records metrics and spans of its units of work."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace as otel_trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from ._redaction import described
from ._telemetry.metrics import Metrics
from ._telemetry.traces import Traces
from ._unit.database_base import DatabaseBase, core_of
from .errors import UsageError

__all__ = ["instrument"]


def instrument(
    *databases: DatabaseBase,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    tracing: bool = True,
    metrics: bool = True,
    span_above: float = 0.1,
) -> Callable[[], None]:
    """Record metrics and spans of the *databases*; return what ends that.

    Metrics: those of a connection pool by OpenTelemetry's semantic conventions
    (`db.client.connection.*`), and `unitwork.*`. Spans: one for each unit that takes a
    connection, below the span of its request; a wait for a connection and a COMMIT
    that take *span_above* seconds or longer have spans of their own. Statements are
    left to other instrumentations. A unit of a background task is linked to that of its
    request.

    The providers are the global ones unless they are given, as to `FastAPI(
    telemetry=...)`. Needs `opentelemetry-api`; without an SDK nothing is recorded.
    Raises `UsageError` without a database.

    .. versionadded:: 0.2
    """
    cores = []
    for database in databases:
        if not isinstance(database, DatabaseBase):
            raise UsageError(
                f"{described(database)} is no database; give a Database or "
                "AsyncDatabase"
            )
        cores.append(core_of(database))
    if not cores:
        raise UsageError("instrument() needs a database: write instrument(db)")
    ends: list[Callable[[], None]] = []
    if metrics:
        provider = meter_provider or otel_metrics.get_meter_provider()
        meter = provider.get_meter("unitwork", version("unitwork"))
        observer = Metrics(meter, cores)
        ends += [each.observers.add(observer, observer.kinds) for each in cores]
    if tracing:
        tracers = tracer_provider or otel_trace.get_tracer_provider()
        traces = Traces(tracers.get_tracer("unitwork", version("unitwork")), span_above)
        ends += [each.observers.add(traces, traces.kinds) for each in cores]

    def stop() -> None:
        for end in ends:
            end()

    return stop
