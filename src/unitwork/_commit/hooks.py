"""The hooks of a unit: their order, and which of them a savepoint drops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sqlalchemy.orm import Session, SessionTransaction

from ..outcome import Outcome

__all__ = ["Hook", "Hooks", "enclosing"]


class Hook(NamedTuple):
    call: Callable[[], Any]
    within: tuple[SessionTransaction, ...]
    """The transactions, innermost first, that were open when it was registered."""

    @property
    def name(self) -> str:
        """For logs."""
        call = getattr(self.call, "func", self.call)  # a partial's
        return getattr(call, "__qualname__", None) or repr(call)


class Hooks:
    """The hooks of one unit, first in, first out. Not for use by two threads at once.

    A hook may register others: they run in the same round, after those that wait.
    """

    __slots__ = (
        "_due",
        "before_commit",
        "on_commit",
        "on_rollback",
        "on_unknown",
    )

    def __init__(self) -> None:
        self.before_commit: deque[Hook] = deque()
        self.on_commit: deque[Hook] = deque()
        self.on_rollback: deque[Hook] = deque()
        self.on_unknown: deque[Hook] = deque()
        self._due: deque[Hook] = deque()
        """Hooks whose outcome is known already, to be called when the unit ends."""

    def __bool__(self) -> bool:
        return bool(
            self.before_commit
            or self.on_commit
            or self.on_rollback
            or self.on_unknown
            or self._due
        )

    def rolled_back(self, transaction: SessionTransaction) -> None:
        """Drop the hooks that were registered inside *transaction*."""
        for name in ("before_commit", "on_commit"):
            queue = getattr(self, name)
            setattr(self, name, deque(h for h in queue if transaction not in h.within))

    def outcome_known(self, outcome: Outcome) -> None:
        """Keep the hooks for *outcome*, to be called when the unit ends."""
        self._due.extend(self._waiting_for(outcome))
        for queue in (self.on_commit, self.on_rollback, self.on_unknown):
            queue.clear()

    def _waiting_for(self, outcome: Outcome) -> deque[Hook]:
        if outcome is Outcome.COMMITTED:
            return self.on_commit
        return self.on_rollback if outcome is Outcome.ROLLED_BACK else self.on_unknown

    def take_before_commit(self) -> Iterator[Hook]:
        while self.before_commit:
            yield self.before_commit.popleft()

    def take(self, outcome: Outcome) -> Iterator[Hook]:
        """Yield the hooks to call after *outcome*, also those registered meanwhile."""
        self.before_commit.clear()
        waiting = self._waiting_for(outcome)
        while self._due or waiting:
            yield (self._due or waiting).popleft()
        for queue in (self.on_commit, self.on_rollback, self.on_unknown):
            queue.clear()


def enclosing(session: Session) -> Iterator[SessionTransaction]:
    """Yield the open transactions of *session*, innermost savepoint first."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
