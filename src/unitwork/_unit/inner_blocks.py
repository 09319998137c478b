"""The blocks and savepoints inside a unit, for which its end waits."""

from __future__ import annotations

import asyncio
from threading import RLock

from sqlalchemy.orm import SessionTransaction

from .._call_site import calling_frame
from .._commit.hooks import Hooks
from .._concurrency.fork import renew_after_fork
from .._concurrency.worker import current_worker
from .open_blocks import OpenBlocks, is_in_request
from .owner import UnitOwner

__all__ = ["HasInnerBlocks"]

_making = renew_after_fork(RLock())


class HasInnerBlocks:
    """The part of a unit that knows what has begun inside it and has not ended."""

    has_had_blocks = False  # whether some have joined it: `open_blocks` has them
    _blocks: OpenBlocks | None = None
    owner: UnitOwner
    hooks: Hooks | None

    @property
    def open_blocks(self) -> OpenBlocks:
        """The blocks that have joined it and have not ended."""
        with _making:
            if self._blocks is None:
                self._blocks, self.has_had_blocks = OpenBlocks(), True
        return self._blocks

    def savepoint_begun(self, savepoint: SessionTransaction) -> None:
        """Count it as a block of the task that has called `session.begin_nested()`.

        Not in a thread, which shows no end of what it does, and not in the call of an
        HTTP endpoint or of its dependencies: that has returned when a response starts.
        """
        task = current_worker()
        if not isinstance(task, asyncio.Task):
            return
        outermost = getattr(task.get_coro(), "cr_frame", None)
        returns = self.owner.kind == "request" and is_in_request(
            calling_frame(), outermost
        )
        if not returns:
            self.open_blocks.begin_savepoint(savepoint)

    def savepoint_ended(self, savepoint: SessionTransaction) -> None:
        if self._blocks is not None:
            self._blocks.end_savepoint(savepoint)

    def savepoint_undone(self, savepoint: object) -> None:
        if self.hooks is not None:
            self.hooks.savepoint_undone(savepoint)

    def end_requested(self) -> None:
        """Record which task or thread has requested the end."""
        if self._blocks is not None:
            self._blocks.requested_by = current_worker()

    def end_answered(self) -> None:
        if self._blocks is not None:
            self._blocks.requested_by = None
