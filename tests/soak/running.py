"""One program while it runs: its books, and what its client hears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from sqlalchemy import exc
from starlette.websockets import WebSocketDisconnect

from soak.model import Books, Fate, Hook, Unit
from soak.program import Program
from support.asgi import Message
from unitwork import CommitUnknownError, UsageError

BUSY = (TimeoutError, exc.TimeoutError)
"""Of the pool, or of a COMMIT that waits for the lock of SQLite."""


def is_busy(error: BaseException | None) -> bool:
    """Whether *error* says that something has taken too long.

    Starlette turns a timeout that a WebSocket's `send()` raises, an `OSError`, into a
    disconnect. A `before_commit` hook that waits for the lock of SQLite runs out of
    time before its statement does.
    """
    if isinstance(error, WebSocketDisconnect):
        error = error.__context__
    slow_hook = isinstance(error, UsageError) and str(error).startswith(
        "the before_commit hook"
    )
    return isinstance(error, BUSY) or slow_hook


class Running:
    """A program that runs: its books, its client, and what leaves the middleware."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.books = Books(program.number)
        self.unit = Unit(self.books)
        self.body_unit = self.unit
        self.background: Hook | None = None
        self.reported = "nothing"
        """success, failure, unknown, nothing."""
        self.error: BaseException | None = None
        self.left = asyncio.Event()
        self.is_over = False
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._complete = False
        self._to_receive = _messages(program)

    # What the application does

    def next_attempt(self) -> Unit:
        """The endpoint has been called: what it did before must have been undone."""
        self.unit.settle(Fate.ABSENT, f"attempt {self.books.attempt} was not the last")
        self.books.new_attempt()
        self.unit = self.body_unit = Unit(self.books)
        if self.program.base_inside and self.program.chunks:
            # Such a middleware runs the body ahead of the start of the response.
            self.body_unit = Unit(self.books)
            self.body_unit.is_loose = True
            self.unit.body = self.body_unit
        return self.unit

    # The client

    async def receive(self) -> Message:
        if self._to_receive:
            return self._to_receive.pop(0)
        await self.left.wait()
        if self.program.how == "websocket":
            return {"type": "websocket.disconnect", "code": 1000}
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.left.is_set() and self.program.spec_version == "2.4":
            raise OSError("the client has left")

    def interrupt(self) -> None:
        self.books.interrupted = True

    # What leaves the middleware

    def passes(self, message: Message) -> None:
        """*message* is on its way to the client: what it depends on must be stored."""
        kind = message["type"]
        if kind in ("websocket.send", "websocket.close"):
            self.reported = "success"
            self._message_passes(f"{kind} has left")
        elif kind == "http.response.start":
            if self._status:
                self.books.wrong("protocol: two responses have started")
            self._status = message["status"]
            self._headers = dict(message["headers"])
            # An open cursor keeps its transaction, unless that is to be committed.
            dropped = self.unit.rollback_only or not self.unit.open_rows
            waits = self.unit.has_cursor and dropped
            if not waits and (self._status < 400 or b"x-own" in self._headers):
                self._settle_answer(self.unit, "was answered")
        elif kind == "http.response.body":
            self._body += message.get("body", b"")
            self._complete = not message.get("more_body", False)

    def waits(self) -> None:
        """The application waits for a message."""
        if self.program.how == "websocket":
            self._message_passes("the WebSocket waits for a message")

    def _message_passes(self, because: str) -> None:
        self.unit.succeed(because)
        self.unit.start_afresh()

    def _settle_answer(self, unit: Unit, what: str) -> None:
        """An answer that the application has meant to give, or one in its place."""
        because = f"{self._status} {what}"
        if unit is self.body_unit:  # what a body does is dropped as well
            unit.rollback_only |= self.unit.rollback_only
        elif self.body_unit.rollback_only and not unit.rollback_only:
            unit.settle(Fate.TOGETHER, f"{because}, its body said rollback_only()")
            return
        success = self._status < 400 and b"x-handled" not in self._headers
        committed_anyway = unit.commit_anyway and not unit.has_failed_beside
        if b"x-own" not in self._headers:
            unit.settle(Fate.ABSENT, because)
        elif success or committed_anyway or unit.rollback_only:
            unit.succeed(because)
        elif unit.commit_anyway:
            unit.settle(Fate.TOGETHER, f"{because}, a task beside it has failed")
        elif self._status < 400 and self.program.base_inside:
            unit.settle(Fate.TOGETHER, f"{because}, its exception may be hidden")
        else:
            unit.settle(Fate.ABSENT, because)

    def ended(self, error: BaseException | None) -> None:
        """The middleware has returned or raised; or a block or `run()` has."""
        self.is_over, self.error = True, error
        # Once the answer is complete it is an error of the background task's own block.
        unclear = isinstance(error, CommitUnknownError) and not self._complete
        unknown = unclear or (self._status >= 500 and b"unknown" in self._body)
        interrupted = self.left.is_set() or isinstance(error, asyncio.CancelledError)
        if unknown:
            self.reported = "unknown"
        elif self._complete:
            self.reported = "success" if self._status < 400 else "failure"
        elif not interrupted and (self.reported != "success" or error is not None):
            self.reported = "failure"
        for unit in (self.unit, self.body_unit):
            if unknown:
                unit.settle(Fate.TOGETHER, f"unknown: {self._status} {error!r:.80}")
            elif self._complete and (b"x-own" in self._headers or not interrupted):
                self._settle_answer(unit, "was complete")
            elif interrupted:
                unit.settle(Fate.TOGETHER, "no one heard the answer")
            else:
                unit.settle(Fate.ABSENT, f"without an answer: {error!r:.80}")
        self._check_reasons()

    def returned(self, error: BaseException | None) -> None:
        """A program without a client is over."""
        self.is_over, self.error = True, error
        self.reported = "success" if error is None else "failure"
        if isinstance(error, CommitUnknownError):
            self.reported = "unknown"
        self._check_reasons()

    def _check_reasons(self) -> None:
        """A failure needs a reason: else nothing would ever have to be stored."""
        program = self.program
        expected = self.books.failures or self.books.interrupted or program.option
        expected = expected or is_busy(self.error)
        if self.reported not in ("failure", "unknown") or expected:
            return
        if program.status >= 400 and b"x-own" in self._headers:
            return
        self.books.wrong(f"refused: {self._status} {self._body[:80]!r} {self.error!r}")


def _messages(program: Program) -> list[Message]:
    if program.how != "websocket":
        return [{"type": "http.request", "body": b"", "more_body": False}]
    text = {"type": "websocket.receive", "text": "next"}
    return [{"type": "websocket.connect"}, *(text for _ in program.ops)]


class Counted:
    """Awaits *work*; calls each of *acts* at the suspension of that number."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], acts: dict[int, Callable[[], object]]
    ) -> None:
        self._work = work
        self._acts = acts
        self._count = 0

    def __await__(self) -> Generator[Any, None, Any]:
        work, error = self._work, None
        while True:
            try:
                future = work.send(None) if error is None else work.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            self._count += 1
            if act := self._acts.get(self._count):
                asyncio.get_running_loop().call_soon(act)
            try:
                yield future
            except GeneratorExit:
                work.close()
                raise
            except BaseException as thrown:
                error = thrown
