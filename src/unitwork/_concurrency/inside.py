"""What the caller is inside of: its task has begun it, or one that has started it."""

from __future__ import annotations

from contextvars import ContextVar
from weakref import ReferenceType, ref

__all__ = ["contains_caller", "enter", "leave", "things_around"]

_inside: ContextVar[tuple[ReferenceType[object], ...]] = ContextVar(
    "unitwork_inside", default=()
)
"""Inherited by the tasks and threads that are started inside.

By weak references: a context may last longer than a session.
"""


def enter(thing: object) -> None:
    alive = (each for each in _inside.get() if each() is not None)
    _inside.set((*alive, ref(thing)))


def leave(thing: object) -> bool:
    """Return whether the caller was inside."""
    inside = _inside.get()
    if ref(thing) not in inside:
        return False
    _inside.set(tuple(each for each in inside if each() is not thing))
    return True


def contains_caller(thing: object) -> bool:
    return ref(thing) in _inside.get()


def things_around() -> tuple[ReferenceType[object], ...]:
    """All that the caller is inside of, outermost first."""
    return _inside.get()
