"""An observer that keeps the events it gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from unitwork.events import Event, PoolEvent, UnitEvent

E = TypeVar("E", bound=Event)


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        [event] = self.of(kind)
        return event

    @property
    def story(self) -> list[str]:
        """The names of the events of units, in their order."""
        return [type(event).__name__ for event in self.of(UnitEvent)]

    @property
    def pool_story(self) -> list[str]:
        return [type(event).__name__ for event in self.of(PoolEvent)]


@contextmanager
def recording(db: Any, **options: Any) -> Iterator[Recorder]:
    """Record the events of *db* in the block."""
    recorder = Recorder()
    stop = db.observe(recorder, **options)
    try:
        yield recorder
    finally:
        stop()
