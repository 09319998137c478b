"""The `transaction()` blocks that are open inside a unit when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from concurrent.futures import Future

from .._concurrency.inside import contains_caller, enter, leave
from .._concurrency.worker import awaits_any, current_worker
from .._transaction.savepoints import committed_beside
from ..errors import UnexpectedRollbackError, UsageError

__all__ = ["OpenBlock", "OpenBlocks"]

_IN_ANOTHER_TASK = (
    "another task or thread was still inside a transaction() block that had joined "
    "this unit of work {limit:g} seconds after its end (end_timeout), so nothing was "
    "stored: await what you start, or give it a unit of its own: "
    '`db.transaction()`, without nested="{nested}"'
)
_SAVEPOINT_IN_ANOTHER_TASK = (
    "another task was still inside a savepoint of this unit of work {limit:g} seconds "
    "after its end (end_timeout), so nothing was stored: await what you start, or give "
    "it a unit of its own: `db.transaction()`"
)
_HELD = (
    "a dependency with yield holds a transaction() block open that would commit after "
    "the response has started, when no failure can be reported any more. Write "
    'Depends(..., scope="function") for that dependency (FastAPI 0.121), or let it '
    'join the unit of the request: db.transaction(nested="join"), Depends(db.session)'
)
_CUT_OFF = (
    "the unit of work that this transaction() block had joined has ended meanwhile, "
    "and was rolled back; give a task of your own a unit of its own"
)
_BEGUN_LATE = (
    "the work of this unit is lost: another task or thread has begun a transaction() "
    "block or a savepoint in it just before its COMMIT. Await what you start, or give "
    "it a unit of its own: `db.transaction()`"
)
_SAVEPOINT = "begin_nested"


class OpenBlock:
    """One block that has joined a unit: where it runs."""

    __slots__ = ("__weakref__", "cut_off", "held", "nested", "savepoint", "worker")

    def __init__(self, nested: str, *, held: bool, savepoint: object = None) -> None:
        self.nested = nested
        self.worker = current_worker()
        self.held = held
        """Whether what serves the request holds it open: its end is not waited for."""
        self.savepoint = savepoint
        """The one that it stands for, if any."""
        self.cut_off = False
        """Whether its unit has ended without it."""

    def runs_beside(self, waiting: Collection[object]) -> bool:
        """Whether it is the block of a task or thread that is not *waiting* for it.

        Nor for one that is: neither would ever end.
        """
        if self.held or self.worker in waiting:
            return False
        if not isinstance(self.worker, asyncio.Task):
            return True
        return not (self.worker.done() or awaits_any(self.worker, waiting))

    def excludes_caller(self) -> bool:
        """Whether the caller has neither begun it nor was started inside of it."""
        if self.worker is current_worker() or contains_caller(self.savepoint or self):
            return False
        if isinstance(self.worker, asyncio.Task):
            return not self.worker.done()
        return not self.held

    def check(self) -> None:
        if self.cut_off:
            raise UsageError(_CUT_OFF)


class OpenBlocks:
    """The blocks inside one unit that have not ended. Safe to use from any thread."""

    __slots__ = (
        "_changing",
        "_ended",
        "_held",
        "_joined",
        "_of_savepoints",
        "_waiting",
    )

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._joined: list[OpenBlock] = []
        self._of_savepoints: dict[object, OpenBlock] = {}
        self._held = 0
        self._ended: Future[None] | None = None
        self._waiting: set[object] = set()
        """The tasks and threads that wait for the end of the unit."""

    def join(self, nested: str, *, held: bool) -> OpenBlock:
        block = OpenBlock(nested, held=held)
        enter(block)
        self._begin(block)
        return block

    def leave(self, block: OpenBlock) -> None:
        leave(block)
        self._end(block)

    def begin_savepoint(self, savepoint: object, *, held: bool) -> None:
        """Count one, of a session or sent as SQL, which the caller is inside of."""
        block = OpenBlock(_SAVEPOINT, held=held, savepoint=savepoint)
        self._of_savepoints[savepoint] = block
        self._begin(block)

    def end_savepoint(self, savepoint: object) -> None:
        block = self._of_savepoints.pop(savepoint, None)
        if block is not None:
            self._end(block)

    def hold(self, change: int) -> None:
        """Count a block with a unit of its own that a dependency holds open."""
        with self._changing:
            self._held += change

    def check_held(self) -> None:
        if self._held:
            raise UsageError(_HELD)

    def end_of_others(self) -> Future[None] | None:
        """A future for the end of blocks in other tasks; `None` if there are none.

        Others may begin meanwhile: look again after it.
        """
        with self._changing:
            beside = self._beside()
            if not beside:
                return None
            self._ended = ended = Future[None]()
        for block in beside:
            if isinstance(block.worker, asyncio.Task):
                loop, notice = block.worker.get_loop(), block.worker.add_done_callback
                loop.call_soon_threadsafe(notice, self._task_ended)
        return ended

    def end_requested(self) -> None:
        """Count the caller among those that wait for the end of the unit."""
        self._waiting.add(current_worker())
        self._end_if_alone()

    def end_answered(self) -> None:
        """Forget who has waited, and the savepoints that the end has released."""
        for savepoint, block in [*self._of_savepoints.items()]:
            if not block.runs_beside(self._waiting):
                self.end_savepoint(savepoint)
        self._waiting.clear()

    def late_error(self) -> UnexpectedRollbackError | None:
        """Fail what others have begun since they were waited for."""
        return UnexpectedRollbackError(_BEGUN_LATE) if self._cut_off() else None

    def check_commit(self) -> None:
        """Raise `UsageError` if others are inside while the application commits."""
        with self._changing:
            others = any(block.excludes_caller() for block in self._joined)
        if others:
            raise committed_beside()

    def _begin(self, block: OpenBlock) -> None:
        with self._changing:
            self._joined.append(block)

    def _end(self, block: OpenBlock) -> None:
        with self._changing:
            self._joined.remove(block)
        self._end_if_alone()

    def _task_ended(self, task: object) -> None:
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        with self._changing:
            ended = None if self._beside() else self._ended
        if ended is not None and not ended.done():
            ended.set_result(None)

    def cut_off(self, limit: float) -> UsageError:
        """Fail the blocks in other tasks; return the error for the unit."""
        beside = self._cut_off()
        nested = beside[0].nested if beside else "join"
        if nested == _SAVEPOINT:
            return UsageError(_SAVEPOINT_IN_ANOTHER_TASK.format(limit=limit))
        return UsageError(_IN_ANOTHER_TASK.format(limit=limit, nested=nested))

    def _cut_off(self) -> list[OpenBlock]:
        with self._changing:
            beside = self._beside()
            for block in beside:
                block.cut_off = True
        return beside

    def _beside(self) -> list[OpenBlock]:
        return [x for x in self._joined if x.runs_beside(self._waiting)]
