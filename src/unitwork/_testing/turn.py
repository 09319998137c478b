"""One claim to the connection of a sandbox, and what is known of its transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

__all__ = ["Mark", "Turn"]


class _Queue(Protocol):
    """The turns of one connection."""

    def has(self, turn: Turn) -> bool: ...

    async def enter_async(self, turn: Turn) -> None: ...

    def enter(self, turn: Turn) -> None: ...

    def leave(self, turn: Turn) -> None: ...


class Mark:
    """The outcome of one COMMIT, for a unit whose COMMIT is in doubt."""

    committed = False


class Turn:
    """The claim of one unit, or of the test itself, to the connection of a sandbox.

    It is what the session of a unit takes for the admission gate.
    """

    __slots__ = (
        "_turns",
        "committed_inside",
        "enclosing",
        "failed",
        "identity",
        "is_lost",
        "is_preemptible",
        "is_read_only",
        "last_statement",
        "mark",
        "name",
        "reads_only",
        "refuses_writes",
        "savepoint",
        "savepoints_inside",
        "set_constraints",
        "set_something",
        "settings_around",
        "statements_in_flight",
        "wrote",
    )

    def __init__(
        self,
        turns: _Queue,
        name: Callable[[], str],
        identity: object,
        enclosing: Callable[[], Iterable[object]],
        *,
        is_preemptible: bool = False,
    ) -> None:
        self._turns = turns
        self.name = name
        self.identity = identity
        self.enclosing = enclosing
        """The identities of those inside which it is."""
        self.is_preemptible = is_preemptible
        """Whether others go first while it executes nothing: the test itself."""
        self.statements_in_flight = 0
        self.savepoint: str | None = None
        self.mark: Mark | None = None
        self.last_statement = ""
        self.is_lost = False
        """Whether what it had not committed is undone, because a statement failed."""
        self.forget()

    @property
    def is_held(self) -> bool:
        return self._turns.has(self)

    def forget(self) -> None:
        """Reset what belongs to one transaction."""
        self.committed_inside: str | None = None
        """The unit inside that has committed, which a rollback would undo."""
        self.savepoints_inside: dict[str, str | None] = {}
        """Its own savepoints, with what was `committed_inside` when they began."""
        self.wrote = False
        self.reads_only = True
        """Whether all of its statements are known to read."""
        self.is_read_only = False
        self.refuses_writes = False
        """Whether it is read-only where the database does not see to it."""
        self.set_constraints = False
        self.set_something = False
        """Whether a statement may have changed a setting of the transaction."""
        self.settings_around: Sequence[tuple[str, str]] | None = None
        """What those around it have set, to be set again after it."""
        self.failed = False
        """Whether its last statement has failed."""

    @property
    def may_write(self) -> bool:
        """Whether that is expected: of a unit, by its options and its request."""
        return bool(getattr(self.identity, "may_write", True))

    def is_inside(self, other: Turn) -> bool:
        return any(each is other.identity for each in self.enclosing())

    # `Gate`, for the session of a unit

    async def acquire(self) -> None:
        await self._turns.enter_async(self)

    def acquire_in_thread(self) -> bool:
        self._turns.enter(self)
        return True

    def release(self) -> None:
        self._turns.leave(self)

    def warn_on_event_loop(self) -> None:
        """Say nothing: a test waits for each statement anyway."""
