"""What a test observes of units: their outcomes, and their hooks. Nothing otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["EndingObserver", "observation"]


class EndingObserver(Protocol):
    """Called in the context of the unit, by whatever ends it."""

    def unit_ended(self, unit: Any) -> None:
        """Receive a `Unit` whose outcome is known."""
        ...

    def captures(self, unit: Any, hook: Callable[[], object]) -> bool:
        """Whether the on_commit *hook* of *unit* is not to be called."""
        ...


class _Observation:
    """The observer of all units; `None` outside of tests."""

    __slots__ = ("observer",)

    def __init__(self) -> None:
        self.observer: EndingObserver | None = None

    def captures(self, unit: object, hook: Callable[[], object]) -> bool:
        return self.observer is not None and self.observer.captures(unit, hook)


observation = _Observation()
