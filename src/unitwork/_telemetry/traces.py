"""An observer that makes a span of each unit that uses a database."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    NoOpTracer,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
)

from .._concurrency.fork import forget_after_fork
from .._observing.subjects import UnitInfo
from .._observing.unit_events import (
    CommitAnswered,
    ConnectionTaken,
    HoldWarning,
    HookFailed,
    OutcomeVerified,
    OutsideEntered,
    OutsideLeft,
    ResponseStarted,
    UnitBegun,
    UnitEnded,
)
from .._session.database_core import DatabaseCore
from ..outcome import Outcome
from .attributes import attempt_of, cause_of, error_type, key_of, unit_attributes
from .recordings import Telemetry

__all__ = ["Traces"]

_MOST_LINKS = 1000  # units that have ended, to which others may be linked
_FAILURES = {"commit_failed", "deadline", "exception", "in_doubt", "lost", "shutdown"}


class _UnitTrace:
    """What is known of one unit. Its span is made when it ends, or is needed.

    By then its attributes are known; one that is not sampled costs nothing more.
    """

    __slots__ = ("context", "events", "is_used", "links", "span", "unit")

    def __init__(self, unit: UnitInfo, context: Context, links: list[Link]) -> None:
        self.unit = unit
        self.context = context
        self.links = links
        self.events: list[tuple[str, dict[str, Any], float]] = []
        self.is_used = False
        """Whether the unit has taken a connection: others have no span."""
        self.span: Span | None = None

    def start(self, tracer: Tracer, attributes: Mapping[str, Any]) -> Span:
        """Start the span, with *attributes*; it begins with the unit."""
        unit = self.unit
        self.span = tracer.start_span(
            "unit",
            self.context,
            SpanKind.INTERNAL,
            {
                **unit_attributes(key_of(unit)),
                "unitwork.attempt": attempt_of(unit),
                "unitwork.databases": unit.databases,
                **attributes,
            },
            self.links,
            _nanoseconds(unit, unit.started),
        )
        return self.span

    def add_events(self, span: Span) -> None:
        for name, attributes, at in self.events:
            span.add_event(name, attributes, _nanoseconds(self.unit, at))


class Traces(Telemetry):
    """Makes a span, by *tracer*, of each unit that takes a connection.

    A wait for a connection and a COMMIT that take longer than the threshold of their
    database get spans of their own.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.span_above: dict[str, float] = {}
        """The thresholds, in seconds, by the names of the databases."""
        self.recorders = {
            UnitBegun: self._begun,
            ConnectionTaken: self._taken,
            CommitAnswered: self._answered,
            OutcomeVerified: self._verified,
            HoldWarning: self._hold_warning,
            OutsideEntered: self._outside_entered,
            OutsideLeft: self._outside_left,
            HookFailed: self._hook_failed,
            ResponseStarted: self._started,
            UnitEnded: self._over,
        }
        self.records = not isinstance(tracer, NoOpTracer)
        self.forget_parent()
        forget_after_fork(self)

    def forget_parent(self) -> None:
        self._open: dict[int, _UnitTrace] = {}
        """By the ids of the units."""
        self._ended: OrderedDict[int, SpanContext] = OrderedDict()

    def remove(self, database: DatabaseCore) -> None:
        """End the spans of open units of *database*: their end is not reported."""
        super().remove(database)
        names = {each.name for each in self.databases}
        for number, found in list(self._open.items()):
            if names.isdisjoint(found.unit.databases):
                del self._open[number]
                self._end(found, {}, time.monotonic())

    # The span of a unit

    def _begun(self, event: UnitBegun) -> None:
        context, links = _server_context(), []
        parent = event.unit.parent
        around = None if parent is None else self._open.get(parent)
        if around is not None and around.is_used:
            span = around.span or around.start(self._tracer, {})
            context = trace.set_span_in_context(span, context)
        elif parent is not None and (ended := self._ended.get(parent)) is not None:
            links.append(Link(ended))
        self._open[event.unit.id] = _UnitTrace(event.unit, context, links)

    def _over(self, event: UnitEnded) -> None:
        found = self._open.pop(event.unit.id, None)
        if found is None or not found.is_used:
            return
        cause, error, sqlstate = cause_of(event), event.error, None
        attributes = {
            "db.transaction.outcome": event.outcome.name.lower(),
            "unitwork.reason": cause,
            "unitwork.connection.held": event.use.held,
            "unitwork.connection.idle_in_transaction": event.use.idle,
            "unitwork.pools": event.use.pools,
        }
        if error is not None:
            sqlstate = event.sqlstate
            attributes["error.type"] = error_type(error, sqlstate)
        if sqlstate is not None:
            attributes["db.response.status_code"] = sqlstate
        has_failed = cause in _FAILURES or event.outcome is Outcome.UNKNOWN
        self._end(found, attributes, event.at, event.reason if has_failed else None)

    def _end(
        self,
        found: _UnitTrace,
        attributes: Mapping[str, Any],
        at: float,
        failure: str | None = None,
    ) -> None:
        if not found.is_used:
            return
        span = found.span
        if span is None:
            span = found.start(self._tracer, attributes)
        elif span.is_recording():  # the route may be known by now
            known = unit_attributes(key_of(found.unit))
            span.set_attributes({**known, **attributes})
        if span.is_recording():
            found.add_events(span)
            if failure is not None:
                span.set_status(StatusCode.ERROR, failure)
        span.end(_nanoseconds(found.unit, at))
        self._ended[found.unit.id] = span.get_span_context()
        if len(self._ended) > _MOST_LINKS:
            self._ended.popitem(last=False)

    # What it contains

    def _taken(self, event: ConnectionTaken) -> None:
        found = self._open.get(event.unit.id)
        if found is None:  # begun before it was observed
            return
        found.is_used = True
        if event.waited >= self.span_above.get(event.database, math.inf):
            self._add_span(found, "wait", event, event.waited, None)

    def _answered(self, event: CommitAnswered) -> None:
        found = self._open.get(event.unit.id)
        if found is None:
            return
        if event.duration >= self.span_above.get(event.database, math.inf):
            self._add_span(found, "COMMIT", event, event.duration, event.error)
            return
        attributes = {
            "unitwork.database": event.database,
            "unitwork.duration": event.duration,
        }
        if event.error is not None:
            attributes["error.type"] = type(event.error).__qualname__
        found.events.append(("COMMIT", attributes, event.at))

    def _add_span(
        self,
        found: _UnitTrace,
        name: str,
        event: ConnectionTaken | CommitAnswered,
        duration: float,
        error: BaseException | None,
    ) -> None:
        """Add what took *duration* as a span of its own."""
        span = found.span or found.start(self._tracer, {})
        if not span.is_recording():
            return
        attributes = {"unitwork.database": event.database}
        if error is not None:
            attributes["error.type"] = type(error).__qualname__
        unit, ended_at = event.unit, event.at
        inner = self._tracer.start_span(
            name,
            trace.set_span_in_context(span, found.context),
            attributes=attributes,
            start_time=_nanoseconds(unit, ended_at - duration),
        )
        if error is not None:
            inner.set_status(StatusCode.ERROR, str(error))
        inner.end(_nanoseconds(unit, ended_at))

    def _verified(self, event: OutcomeVerified) -> None:
        committed = "unknown" if event.committed is None else str(event.committed)
        self._add(event, "verification", {"unitwork.committed": committed})

    def _hold_warning(self, event: HoldWarning) -> None:
        attributes = {"unitwork.call_site": str(event.call_site or "")}
        self._add(event, "hold warning", attributes)

    def _outside_entered(self, event: OutsideEntered) -> None:
        self._add(event, "outside entered", {"unitwork.outside": event.name})

    def _outside_left(self, event: OutsideLeft) -> None:
        self._add(event, "outside left", {"unitwork.outside": event.name})

    def _started(self, event: ResponseStarted) -> None:
        attributes = {"http.response.status_code": event.status}
        self._add(event, "response started", attributes)

    def _hook_failed(self, event: HookFailed) -> None:
        self._add(event, "hook failed", {"unitwork.hook": event.name})

    def _add(self, event: Any, name: str, attributes: dict[str, Any]) -> None:
        """Add an event, unless the unit has used no database."""
        found = self._open.get(event.unit.id)
        if found is not None and found.is_used:
            found.events.append((name, attributes, event.at))


def _nanoseconds(unit: UnitInfo, at: float) -> int:
    """The time of the day at which something has happened *at*, by `monotonic()`."""
    return int((unit.started_at + at - unit.started) * 1e9)


def _server_context() -> Context:
    """The context of the server's span, in which the caller is, or that of the caller.

    FastAPI has spans for dependencies and endpoints, which end before a unit does.
    """
    context = otel_context.get_current()
    span: Any = trace.get_current_span(context)
    scope = getattr(span, "instrumentation_scope", None)
    if getattr(scope, "name", "") == "fastapi" and span.kind is not SpanKind.SERVER:
        parent: SpanContext | None = span.parent
        if parent is not None:
            return trace.set_span_in_context(NonRecordingSpan(parent), context)
    return context
