"""One claim to the connection of a sandbox, and what is known of its transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, IntEnum
from typing import Protocol

from . import savepoints

__all__ = ["SandboxedCommit", "SavepointState", "Turn", "WriteAccess", "Writes"]


class _Queue(Protocol):
    """The turns of one connection."""

    def has(self, turn: Turn) -> bool: ...

    async def enter_async(self, turn: Turn) -> None: ...

    def enter(self, turn: Turn) -> None: ...

    def leave(self, turn: Turn) -> None: ...


class SandboxedCommit:
    """The outcome of one COMMIT, for a unit whose COMMIT is in doubt."""

    committed = False


class SavepointState(Enum):
    """The life of a transaction that is a savepoint; `Turn.move()` moves it."""

    NONE = "not begun, or ended"
    OPEN = "begun"
    FAILED = "its last statement has failed, and PostgreSQL accepts only its rollback"
    UNDONE = "rolled back after a failure, before its session has rolled back"


class WriteAccess(Enum):
    """Whether a transaction may write."""

    READ_WRITE = "read and write"
    READ_ONLY = "the database refuses to write"
    WRITES_REFUSED = "the sandbox refuses to write, as the database has no such mode"


class Writes(IntEnum):
    """What is known about the writes of a transaction; it may only rise."""

    NONE = 0
    """All of its statements are known to read."""
    UNKNOWN = 1
    SOME = 2


class Turn:
    """The claim of one unit, or of the test itself, to the connection of a sandbox.

    It is what the session of a unit takes for the admission gate.
    """

    __slots__ = (
        "_turns",
        "access",
        "committed_inside",
        "enclosing",
        "identity",
        "is_preemptible",
        "last_statement",
        "mark",
        "name",
        "savepoint",
        "savepoints_inside",
        "set_constraints",
        "set_something",
        "settings_around",
        "state",
        "statements_in_flight",
        "temporary_tables",
        "unclassified",
        "writes",
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
        self.state = SavepointState.NONE
        self.savepoint: str | None = None
        """The savepoint that the transaction is, while it is open."""
        self.mark: SandboxedCommit | None = None
        self.last_statement = ""
        self.writes = Writes.NONE
        """Those of the statements that are classified."""
        self.forget()

    @property
    def is_held(self) -> bool:
        return self._turns.has(self)

    def move(self, state: SavepointState, savepoint: str | None = None) -> None:
        """Record that the transaction is in another *state*.

        That a statement has failed or succeeded says nothing once it has ended.
        """
        if savepoint is not None:
            self.savepoint = savepoint
        elif state in (SavepointState.OPEN, SavepointState.FAILED):
            if self.savepoint is None:
                return
        else:
            self.savepoint = None
        self.state = state

    def note(self, statement: str) -> None:
        """Record what savepoints do not show of a *statement* that PostgreSQL gets."""
        if "'transaction_read_only', 'on'" in statement:
            self.access = WriteAccess.READ_ONLY
        if savepoints.sets_constraints(statement):
            self.set_constraints = True
        if savepoints.changes_settings(statement):
            self.set_something = True
        if (table := savepoints.dropped_on_commit(statement)) is not None:
            self.temporary_tables.append(table)

    def classify_last(self, writes: Writes) -> None:
        """Record what its last statement is known to do."""
        if self.unclassified:
            self.unclassified.pop()
        self.writes = max(self.writes, writes)

    def classify_all(self, is_write: Callable[[str], bool]) -> Writes:
        """Find out what its statements have written, also those past SQLAlchemy."""
        for statement in self.unclassified:
            known = Writes.SOME if is_write(statement) else Writes.UNKNOWN
            self.writes = max(self.writes, known)
        self.unclassified.clear()
        return self.writes

    def forget(self) -> None:
        """Reset what belongs to one transaction."""
        self.committed_inside: str | None = None
        """The unit inside that has committed, which a rollback would undo."""
        self.savepoints_inside: dict[str, str | None] = {}
        """Its own savepoints, with what was `committed_inside` when they began."""
        self.writes = Writes.NONE
        self.unclassified: list[str] = []
        """Its other statements, which were executed past SQLAlchemy."""
        self.access = WriteAccess.READ_WRITE
        self.set_constraints = False
        self.set_something = False
        """Whether a statement may have changed a setting of the transaction."""
        self.settings_around: Sequence[tuple[str, str]] | None = None
        """What those around it have set, to be set again after it."""
        self.temporary_tables: list[str] = []
        """Those with ON COMMIT DROP."""

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
