"""The `transaction()` blocks that are open inside a unit when it ends."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import Future
from types import FrameType

from .._concurrency.worker import current_worker
from ..errors import UsageError

__all__ = [
    "BETWEEN",
    "OpenBlock",
    "OpenBlocks",
    "is_generator",
    "is_held_by_dependency",
    "is_in_request",
]

_IN_ANOTHER_TASK = (
    "another task or thread was still inside a transaction() block that had joined "
    "this unit of work {limit:g} seconds after its end (end_timeout), so nothing was "
    "stored: await what you start, or give it a unit of its own: "
    '`async with db.transaction() as session:`, without nested="{nested}"'
)
_SAVEPOINT_IN_ANOTHER_TASK = (
    "another task was still inside a savepoint of this unit of work, begun by "
    "session.begin_nested(), {limit:g} seconds after its end (end_timeout), so nothing "
    "was stored: await what you start, or give it a unit of its own: "
    "`async with db.transaction() as session:`"
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
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_SOLVES_DEPENDENCIES = "fastapi.dependencies.utils"
_CALLS_ENDPOINTS = ("fastapi.routing", "starlette.routing")
_SAVEPOINT = "begin_nested"
BETWEEN = ("contextlib", "unitwork._unit.block")
_RUNS_THREADS = "anyio._backends._asyncio"


class OpenBlock:
    """One block that has joined a unit: where it runs."""

    __slots__ = ("cut_off", "held", "nested", "worker")

    def __init__(self, nested: str, *, held: bool) -> None:
        self.nested = nested
        self.worker = current_worker()
        self.held = held
        """Whether a dependency holds it open until the response is over."""
        self.cut_off = False
        """Whether its unit has ended without it."""

    def runs_beside(self, worker: object) -> bool:
        if self.held or self.worker is worker:
            return False
        return not (isinstance(self.worker, asyncio.Task) and self.worker.done())

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
        "requested_by",
    )

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._joined: list[OpenBlock] = []
        self._of_savepoints: dict[object, OpenBlock] = {}
        self._held = 0
        self._ended: Future[None] | None = None
        self.requested_by: object = None
        """The task or thread that has requested the end of the unit."""

    def join(self, nested: str, *, held: bool) -> OpenBlock:
        block = OpenBlock(nested, held=held)
        with self._changing:
            self._joined.append(block)
        return block

    def leave(self, block: OpenBlock) -> None:
        with self._changing:
            self._joined.remove(block)
            ended = None if self._beside() else self._ended
        if ended is not None and not ended.done():
            ended.set_result(None)

    def begin_savepoint(self, savepoint: object) -> None:
        self._of_savepoints[savepoint] = self.join(_SAVEPOINT, held=False)

    def end_savepoint(self, savepoint: object) -> None:
        block = self._of_savepoints.pop(savepoint, None)
        if block is not None:
            self.leave(block)

    def hold(self, change: int) -> None:
        """Count a block with a unit of its own that a dependency holds open."""
        with self._changing:
            self._held += change

    def check_held(self) -> None:
        if self._held:
            raise UsageError(_HELD)

    def end_of_others(self) -> Future[None] | None:
        """A future for the end of blocks in other tasks; `None` if there are none."""
        with self._changing:
            if not self._beside():
                return None
            self._ended = Future()
            return self._ended

    def cut_off(self, limit: float) -> UsageError:
        """Fail the blocks in other tasks; return the error for the unit."""
        with self._changing:
            beside = self._beside()
            for block in beside:
                block.cut_off = True
        nested = beside[0].nested if beside else "join"
        if nested == _SAVEPOINT:
            return UsageError(_SAVEPOINT_IN_ANOTHER_TASK.format(limit=limit))
        return UsageError(_IN_ANOTHER_TASK.format(limit=limit, nested=nested))

    def _beside(self) -> list[OpenBlock]:
        return [x for x in self._joined if x.runs_beside(self.requested_by)]


def is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & _GENERATOR)


def is_held_by_dependency(frame: FrameType | None) -> bool:
    """Whether a dependency with `yield` enters a block, in *frame* or by what it calls.

    FastAPI runs an async one, up to the `yield`, from its own module; a sync one in a
    thread of anyio, with nothing in between.
    """
    in_generator, directly = False, True
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == _SOLVES_DEPENDENCIES:
            return in_generator
        if module == _RUNS_THREADS:
            return in_generator and directly
        if is_generator(frame):
            in_generator = True
        elif module not in BETWEEN:
            directly = False
        frame = frame.f_back
    return False


def is_in_request(frame: FrameType | None, outermost: FrameType | None) -> bool:
    """Whether FastAPI or Starlette calls an endpoint, or its dependencies, in *frame*.

    Not in a task of the application's own, whose *outermost* frame comes first: an
    eager task begins on the stack of the code that creates it.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") in _CALLS_ENDPOINTS:
            return True
        if frame is outermost:
            return False
        frame = frame.f_back
    return False
