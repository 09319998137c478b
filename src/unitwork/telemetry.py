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
from ._telemetry.recordings import Recordings
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

    It may be called for each database, and more than once: what is recorded already is
    not recorded again. After the end nothing more is reported of units that are open.

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
    stops: list[Callable[[], None]] = []
    if metrics:
        recorded = _metrics.of(meter_provider)
        stops += [_metrics.start(recorded, each) for each in cores]
    if tracing:
        traces = _traces.of(tracer_provider)
        traces.span_above.update((each.name, span_above) for each in cores)
        stops += [_traces.start(traces, each) for each in cores]

    def stop() -> None:
        for each in stops:
            each()

    return stop


def _metrics_of(provider: MeterProvider) -> Metrics:
    return Metrics(provider.get_meter("unitwork", version("unitwork")))


def _traces_of(provider: TracerProvider) -> Traces:
    return Traces(provider.get_tracer("unitwork", version("unitwork")))


_metrics = Recordings(_metrics_of, otel_metrics.get_meter_provider)
_traces = Recordings(_traces_of, otel_trace.get_tracer_provider)
