"""Units whose session only plays, and the steps with which they end."""

from __future__ import annotations

from typing import Any

from support.play import Play, PlayUnitSession
from unitwork._execution.plan import HookCall
from unitwork._observing.registry import Observers
from unitwork._unit.unit import Unit

COMMITTED = ["before_commit", "commit a", "on_commit"]
CLOSED = ["close a: committed", "returned"]
ROLLED_BACK = ["rollback a", "on_rollback"]
DROPPED = ["close a: rolled back", "returned"]
UNKNOWN = ["close a: unknown", "returned"]


class PlayDatabase:
    name = "a"

    def __init__(self, play: Play) -> None:
        self.play = play
        self.observers = Observers()  # read where a test has left others observed

    def open_session(self, owner: Unit) -> PlayUnitSession:
        return self.play.session(self.name, owner)

    @property
    def open_units(self) -> Any:
        return self

    def closed(self, owner: Unit) -> None:
        self.play.steps.append("returned")


def call_hook(step: Any) -> None:
    assert isinstance(step, HookCall)
    step.call()
