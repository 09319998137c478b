"""The hooks of a unit: their order, and which are dropped with their work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy.orm import Session, SessionTransaction

from ..outcome import Outcome

__all__ = ["Hook", "Hooks", "enclosing"]

_DROPPED_WITH_WORK = ("before_commit", "on_commit")


class Hook(NamedTuple):
    call: Callable[[], Any]
    within: tuple[SessionTransaction, ...]
    """The transactions on which it depends: those open when it was registered.

    Innermost first, for each session. Without one it depends on all of its unit.
    """
    is_on_commit: bool = False
    savepoints: tuple[object, ...] = ()
    """The open savepoints that no session has begun: it depends on them as well."""

    def belongs_to(self, transaction: SessionTransaction) -> bool:
        return not self.within or transaction in self.within

    def is_inside(self, savepoint: object) -> bool:
        return savepoint in self.within or savepoint in self.savepoints

    def after_commit(
        self, session: Session, still_open: Sequence[SessionTransaction]
    ) -> Hook:
        """Depend on what *session* has not committed; on nothing: it is due."""
        left = [x for x in self.within or still_open if x.session is not session]
        return self._replace(within=tuple(left))

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

    def savepoint_undone(self, savepoint: object) -> None:
        """Drop what was registered inside *savepoint*; `on_rollback` is the unit's."""
        for name in _DROPPED_WITH_WORK:
            queue = getattr(self, name)
            setattr(self, name, deque(x for x in queue if not x.is_inside(savepoint)))

    def transaction_undone(self, transaction: SessionTransaction) -> None:
        """Drop the hooks for the commit of *transaction*; its `on_rollback` are due."""
        self._due.extend(x for x in self.on_rollback if x.belongs_to(transaction))
        for name in (*_DROPPED_WITH_WORK, "on_rollback", "on_unknown"):
            queue = getattr(self, name)
            kept = (x for x in queue if not x.belongs_to(transaction))
            setattr(self, name, deque(kept))

    def transaction_committed(
        self, session: Session, still_open: Sequence[SessionTransaction]
    ) -> None:
        """Let the hooks be due whose work *session* has committed, as the last one.

        *still_open*: the transactions of other sessions, on which the rest depends.
        """
        for name in ("on_commit", "on_rollback", "on_unknown"):
            queue = [x.after_commit(session, still_open) for x in getattr(self, name)]
            if name == "on_commit":
                self._due.extend(hook for hook in queue if not hook.within)
            setattr(self, name, deque(hook for hook in queue if hook.within))

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
        for queue in (self.on_commit, self.on_rollback, self.on_unknown):
            if queue is not waiting:  # they must not outlive a hook that exits
                queue.clear()
        while queue := self._due or self._waiting_for(outcome):
            yield queue.popleft()
        for queue in (self.on_commit, self.on_rollback, self.on_unknown):
            queue.clear()


def enclosing(session: Session) -> Iterator[SessionTransaction]:
    """Yield the open transactions of *session*, innermost savepoint first."""
    transaction = session.get_nested_transaction() or session.get_transaction()
    while transaction is not None:
        yield transaction
        transaction = transaction.parent
