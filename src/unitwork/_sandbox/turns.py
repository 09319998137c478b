"""Whose turn it is to use the connection of a sandbox.

Savepoints nest strictly, so units of work take turns: a unit has the connection from
its first statement to its end, and others wait, first come, first served. Only a unit
inside another one, which would have a connection of its own, nests in it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Lock
from typing import NamedTuple

from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from .._concurrency.worker import on_event_loop
from .failure import SandboxError
from .turn import Turn

__all__ = ["Turns"]


_INSIDE = (
    "{name} is used inside a unit of work, which has the connection of the sandbox: it "
    "would wait for itself. Use the session of the unit, or end that before"
)


class _WaitingTurn(NamedTuple):
    turn: Turn
    granted: Future[None]


class Turns:
    """The turns of one connection: those that have it, innermost last, and who waits.

    Safe to use from several threads and event loops at once.
    """

    def __init__(
        self,
        timeout: float,
        preempt: Callable[[Turn, Turn], Exception | None],
        abandon: Callable[[Turn], None],
    ) -> None:
        self.timeout = timeout
        self._preempt = preempt
        """Called before a turn is displaced by another; returns why it can't be."""
        self._abandon_turn = abandon
        """Called before a turn ends, which may have left a transaction open."""
        self._holders: list[Turn] = []
        self._waiting: deque[_WaitingTurn] = deque()
        self._lock = Lock()

    @property
    def holders(self) -> list[Turn]:
        return list(self._holders)

    def around(self, turn: Turn) -> list[Turn]:
        """Those inside which *turn* has the connection."""
        holders = self._holders
        return holders[: holders.index(turn)] if turn in holders else []

    def has(self, turn: Turn) -> bool:
        return turn in self._holders

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    # To have the connection

    def enter_anywhere(self, turn: Turn) -> None:
        """Wait as `enter()`, or `enter_async()` in a greenlet of SQLAlchemy's.

        Raises `SandboxError` if *turn* is the test's own, inside a unit that has it.
        """
        if turn.is_preemptible and any(map(turn.is_inside, self.holders)):
            raise SandboxError(_INSIDE.format(name=turn.name()))
        if in_greenlet():
            await_only(self.enter_async(turn))
        else:
            self.enter(turn)

    def enter(self, turn: Turn) -> None:
        """Wait in a thread for *turn* to be the innermost one."""
        wait = self._request(turn)
        if wait is None:
            return
        if on_event_loop():
            self._abandon(wait)
            raise self._error(turn, "and waiting would block the event loop")
        with self._abandoning(wait):
            wait.granted.result(self.timeout)

    async def enter_async(self, turn: Turn) -> None:
        """Wait on the event loop for *turn* to be the innermost one."""
        wait = self._request(turn)
        if wait is None:
            return
        with self._abandoning(wait):
            async with asyncio.timeout(self.timeout):
                await asyncio.wrap_future(wait.granted)

    def leave(self, turn: Turn) -> None:
        with self._lock:
            self._abandon_turn(turn)
            if turn in self._holders:
                self._holders.remove(turn)
            self._grant()

    def begin_statement(self, turn: Turn) -> bool:
        """Count a statement of *turn*, if it is the innermost one."""
        with self._lock:
            if not self._holders or self._holders[-1] is not turn:
                return False
            turn.statements_in_flight += 1
            return True

    def end_statement(self, turn: Turn) -> None:
        with self._lock:
            turn.statements_in_flight -= 1
            self._grant()

    def _request(self, turn: Turn) -> _WaitingTurn | None:
        """Enter at once, or join the queue. Raises if it can't have the connection."""
        with self._lock:
            if not self._waiting and self._may_enter(turn):
                error = self._push(turn)
                if error is not None:
                    raise error
                return None
            wait = _WaitingTurn(turn, Future())
            self._waiting.append(wait)
            self._grant()
        if not wait.granted.done():
            return wait
        wait.granted.result()  # raises if it can't have it
        return None

    def _grant(self) -> None:
        for wait in list(self._waiting):
            if not self._may_enter(wait.turn):
                continue
            self._waiting.remove(wait)
            if wait.granted.set_running_or_notify_cancel():
                error = self._push(wait.turn)
                if error is None:
                    wait.granted.set_result(None)
                else:
                    wait.granted.set_exception(error)

    def _may_enter(self, turn: Turn) -> bool:
        if not self._holders or self._holders[-1] is turn:
            return True
        if turn in self._holders:
            return False
        innermost = self._holders[-1]
        if innermost.statements_in_flight:
            return False
        return innermost.is_preemptible or turn.is_inside(innermost)

    def _push(self, turn: Turn) -> Exception | None:
        innermost = self._holders[-1] if self._holders else None
        if innermost is turn:
            return None
        if innermost is not None and innermost.is_preemptible:
            error = self._preempt(innermost, turn)
            if error is not None:
                return error
            self._holders.pop()
        self._holders.append(turn)
        return None

    @contextmanager
    def _abandoning(self, wait: _WaitingTurn) -> Iterator[None]:
        """Give up what is waited for in the block, if that is not granted."""
        try:
            yield
        except TimeoutError:
            self._abandon(wait)
            raise self._error(wait.turn, f"for {self.timeout:g} seconds") from None
        except BaseException:
            self._abandon(wait)
            raise

    def _abandon(self, wait: _WaitingTurn) -> None:
        with self._lock:
            if wait in self._waiting:
                self._waiting.remove(wait)
                return
        if wait.granted.done() and not wait.granted.cancelled():
            self.leave(wait.turn)

    def _error(self, turn: Turn, how_long: str) -> SandboxError:
        holder = self._holders[-1].name() if self._holders else "nothing"
        return SandboxError(
            f"{turn.name()} has waited {how_long} for the connection of the sandbox, "
            f"which {holder} has: units of work take turns in a sandbox. If they wait "
            "for each other, use the real mode: `sandbox(db, real=True)`"
        )
