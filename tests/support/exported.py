"""OpenTelemetry's SDK with exporters in memory: what was recorded, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Exported:
    """Providers for one test, and what they have exported."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))

    @property
    def providers(self) -> dict[str, Any]:
        return {
            "meter_provider": self.meter_provider,
            "tracer_provider": self.tracer_provider,
        }

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """By name; of several with one name the last."""
        return {span.name: span for span in self._spans.get_finished_spans()}

    def of(self, name: str) -> list[ReadableSpan]:
        return [x for x in self._spans.get_finished_spans() if x.name == name]

    def points(self, name: str) -> list[Any]:
        """The data points of one metric, as it is now."""
        return [
            point
            for metric, points in self._metrics()
            if metric == name
            for point in points
        ]

    def names(self) -> set[str]:
        return {metric for metric, _ in self._metrics()}

    def total(self, name: str, **attributes: object) -> float:
        """The sum, or the count of a histogram, over what has the *attributes*."""
        wanted = {key.replace("_", "."): value for key, value in attributes.items()}
        found = [
            point
            for point in self.points(name)
            if wanted.items() <= dict(point.attributes).items()
        ]
        return sum(getattr(x, "count", getattr(x, "value", None)) for x in found)

    def _metrics(self) -> Iterator[tuple[str, Any]]:
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    yield metric.name, metric.data.data_points

    def shutdown(self) -> None:
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()
