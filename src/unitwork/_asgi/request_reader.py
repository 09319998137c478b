"""What an application receives: the body of its request, the client's disconnect."""

from __future__ import annotations

import asyncio
import sys

from .._unit import endings
from .._unit.unit import Unit
from .attempt import RequestAttempt
from .response import Unwind
from .state import NO_STATE, ResponseState
from .types import Message

__all__ = ["RequestReader"]


class RequestReader(RequestAttempt):
    """One attempt at one request, and its client."""

    held: asyncio.Event | None = None
    """Set once it is known whether the message that is held back goes out."""
    leaving: asyncio.Task[None] | None
    """Rolls back what a stream has begun."""

    async def receive(self) -> Message:
        # A stream is sent by a task of its own, in which no exception is handled;
        # meanwhile the one that made it waits here for the client to leave.
        if sys.exception() is not self.exception_before:
            self.note_exception()
        message = await self.receive_from_server()
        if message["type"] == "http.request":
            if self.response is ResponseState.WAITING:
                self.keep(message)
            return message
        self.client_has_left = True
        if self.unit is not None and self.scope is not NO_STATE:
            await self._client_leaves(self.unit)
        return message

    async def _client_leaves(self, unit: Unit) -> None:
        """Let nothing of the application follow work that is rolled back.

        Its background tasks would, if it was given the message alone.
        """
        if self.response is ResponseState.STARTED and self.leaving is None:
            loses_work = unit.needs_ending and not unit.is_ending
            self.leaving = asyncio.create_task(self._close_for_good(unit))
            if loses_work:
                self.move(ResponseState.CUT_SHORT)
        if unit.is_ending and asyncio.current_task() is not self.task:
            # This task must not raise yet: it would cancel the one that ends the unit.
            self.held = self.held or asyncio.Event()
            await self.held.wait()
        if self.response >= ResponseState.REPLACED:
            raise Unwind

    def let_go(self) -> None:
        """Let those go on that wait for the outcome."""
        if self.held is not None:
            self.held.set()

    async def _close_for_good(self, unit: Unit) -> None:
        """Roll back what a stream has begun, now that its client has left.

        What runs later in the same task (a background task) must find the sessions
        closed. First the stream itself has to be cancelled: its task group does that in
        this round of the event loop, and goes on in the next but one.
        """
        await asyncio.sleep(0)
        await endings.close(unit, "the client left")
