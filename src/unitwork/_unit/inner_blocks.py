"""The blocks and savepoints inside a unit, for which its end waits."""

from __future__ import annotations

import asyncio
from threading import RLock
from types import FrameType

from .._call_site import calling_frame
from .._commit.hooks import Hooks
from .._concurrency.fork import renew_after_fork
from .._concurrency.worker import current_worker
from .frames import is_held_by_dependency, is_in_middleware, is_in_request
from .open_blocks import OpenBlocks
from .owner import UnitOwner

__all__ = ["HasInnerBlocks"]

_making = renew_after_fork(RLock())


class HasInnerBlocks:
    """The part of a unit that knows what has begun inside it and has not ended."""

    known_blocks: OpenBlocks | None = None  # made on first use
    owner: UnitOwner
    hooks: Hooks | None

    @property
    def open_blocks(self) -> OpenBlocks:
        """The blocks that have joined it and have not ended."""
        with _making:
            self.known_blocks = self.known_blocks or OpenBlocks()
        return self.known_blocks

    def savepoint_begun(self, savepoint: object) -> bool:
        """Count it as a block of the task that has begun it, by a session or by SQL.

        Threads are not counted: nothing shows that they have ended. Return whether the
        request is inside of it, that of a sync dependency with `yield`: this has
        begun it in a thread, whose context ends before that of the endpoint begins.
        """
        frame = calling_frame()
        held = self.is_held(frame)
        if not isinstance(current_worker(), asyncio.Task):
            return held
        if self.owner.kind == "request":  # an endpoint that has returned may leave it
            held = held or is_in_request(frame)
        self.open_blocks.begin_savepoint(savepoint, held=held)
        return False

    def is_held(self, frame: FrameType | None) -> bool:
        """Whether a block that begins in *frame* may last as long as the response.

        A middleware or a dependency waits for the response, which can't wait for it.
        """
        if self.owner.is_served_by(current_worker()) or is_held_by_dependency(frame):
            return True
        return self.owner.kind == "request" and is_in_middleware(frame)

    def savepoint_ended(self, savepoint: object) -> None:
        if self.known_blocks is not None:
            self.known_blocks.end_savepoint(savepoint)

    def savepoint_undone(self, savepoint: object) -> None:
        if self.hooks is not None:
            self.hooks.savepoint_undone(savepoint)
