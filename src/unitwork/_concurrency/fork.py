"""What the child process of a fork must not inherit from its parent.

The child has one thread, a copy of the one that has forked. A lock that another thread
held stays locked, and what waited for another thread waits without end.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["ForksClean", "forget_after_fork", "in_child", "renew_after_fork"]

LockT = TypeVar("LockT")


class ForksClean(Protocol):
    """An object with state of its process."""

    def forget_parent(self) -> None:
        """Called in the child of a fork: drop what belongs to the parent. No I/O."""


_objects: WeakSet[Any] = WeakSet()


def in_child(call: Callable[[], object]) -> None:
    """Make *call* in the child of each fork from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def renew_after_fork(lock: LockT) -> LockT:
    """Let the child of a fork find *lock* free; return it. It is kept for good."""
    renew: Any = getattr(lock, "_at_fork_reinit")  # noqa: B009  # as threading does it
    in_child(renew)
    return lock


def forget_after_fork(thing: ForksClean) -> None:
    """Call `forget_parent()` of *thing* in the child of a fork, while it exists."""
    _objects.add(thing)


def _forget() -> None:
    for thing in list(_objects):
        thing.forget_parent()


in_child(_forget)
