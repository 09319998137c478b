"""An observer that makes a span of each unit that uses a database."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
)

from .._observing.event import Event
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
from ..outcome import Outcome
from .attributes import attempt_of, cause_of, error_type, unit_attributes

__all__ = ["Traces"]

_MOST_LINKS = 1000  # units that have ended, to which others may be linked
_FAILURES = {"commit_failed", "deadline", "exception", "in_doubt", "lost", "shutdown"}


class _Trace:
    """The span of one unit, as far as it has one."""

    __slots__ = ("context", "links", "span")

    def __init__(self, context: Context, links: list[Link]) -> None:
        self.context = context
        self.links = links
        self.span: Span | None = None


class Traces:
    """Makes a span, by *tracer*, of each unit that takes a connection.

    A wait for a connection and a COMMIT that take *span_above* seconds or longer get
    spans of their own.
    """

    def __init__(self, tracer: Tracer, span_above: float) -> None:
        self._tracer = tracer
        self._span_above = span_above
        self._open: dict[int, _Trace] = {}
        """By the ids of the units."""
        self._ended: OrderedDict[int, SpanContext] = OrderedDict()
        self._recorders: dict[type[Event], Callable[..., None]] = {
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

    @property
    def kinds(self) -> Collection[type[Event]]:
        """The kinds of event that it needs."""
        return self._recorders.keys()

    def on_event(self, event: Event) -> None:
        self._recorders[type(event)](event)

    # The span of a unit

    def _begun(self, event: UnitBegun) -> None:
        context, links = _server_context(), []
        parent = event.unit.parent
        around = None if parent is None else self._open.get(parent)
        if around is not None and around.span is not None:
            context = trace.set_span_in_context(around.span, context)
        elif parent is not None and (ended := self._ended.get(parent)) is not None:
            links.append(Link(ended))
        self._open[event.unit.id] = _Trace(context, links)

    def _span_of(self, unit: UnitInfo) -> Span | None:
        """The span of *unit*, made now if it has none; it begins with the unit."""
        found = self._open.get(unit.id)
        if found is None:  # begun before it was observed
            return None
        if found.span is None:
            found.span = self._tracer.start_span(
                "unit",
                found.context,
                SpanKind.INTERNAL,
                {
                    **unit_attributes(unit),
                    "unitwork.attempt": attempt_of(unit),
                    "unitwork.databases": unit.databases,
                },
                found.links,
                _nanoseconds(unit, unit.started),
            )
        return found.span

    def _over(self, event: UnitEnded) -> None:
        found = self._open.pop(event.unit.id, None)
        if found is None or found.span is None:
            return
        span, cause = found.span, cause_of(event)
        if span.is_recording():
            span.set_attributes(
                {
                    **unit_attributes(event.unit),
                    "db.transaction.outcome": event.outcome.name.lower(),
                    "unitwork.reason": cause,
                    "unitwork.connection.held": event.use.held,
                    "unitwork.connection.idle_in_transaction": event.use.idle,
                }
            )
            if event.error is not None:
                sqlstate = event.sqlstate
                span.set_attribute(
                    "error.type", error_type(event.error, sqlstate) or ""
                )
                if sqlstate is not None:
                    span.set_attribute("db.response.status_code", sqlstate)
            if cause in _FAILURES or event.outcome is Outcome.UNKNOWN:
                span.set_status(StatusCode.ERROR, event.reason)
        span.end(_nanoseconds(event.unit, event.at))
        self._ended[event.unit.id] = span.get_span_context()
        if len(self._ended) > _MOST_LINKS:
            self._ended.popitem(last=False)

    # What it contains

    def _taken(self, event: ConnectionTaken) -> None:
        attributes = {"unitwork.database": event.database}
        self._timed(event.unit, "wait", event.at, event.waited, attributes, None)

    def _answered(self, event: CommitAnswered) -> None:
        attributes = {"unitwork.database": event.database}
        if event.error is not None:
            attributes["error.type"] = type(event.error).__qualname__
        self._timed(
            event.unit, "COMMIT", event.at, event.duration, attributes, event.error
        )

    def _timed(
        self,
        unit: UnitInfo,
        name: str,
        ended_at: float,
        duration: float,
        attributes: dict[str, str],
        error: BaseException | None,
    ) -> None:
        """Add what took *duration* as a span of its own, or, if it was short, an event.

        A short wait is not worth an event.
        """
        span = self._span_of(unit)
        if span is None or not span.is_recording():
            return
        if duration >= self._span_above:
            inner = self._tracer.start_span(
                name,
                trace.set_span_in_context(span),
                attributes=attributes,
                start_time=_nanoseconds(unit, ended_at - duration),
            )
            if error is not None:
                inner.set_status(StatusCode.ERROR, str(error))
            inner.end(_nanoseconds(unit, ended_at))
        elif name == "COMMIT":
            timed: dict[str, Any] = {**attributes, "unitwork.duration": duration}
            span.add_event(name, timed, _nanoseconds(unit, ended_at))

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
        if found is not None and found.span is not None:
            at = _nanoseconds(event.unit, event.at)
            found.span.add_event(name, attributes, at)


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
