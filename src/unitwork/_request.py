"""The unit of an HTTP request, which sees the response go by and judges itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NoReturn

from ._asking import check_in_time
from ._body import Recording, is_kept, record
from ._concurrency.deadline import Deadline
from ._concurrency.shield import uninterrupted
from ._ending import Ending, Outcome, Verdict, judge
from ._ends import finish_unit
from ._replay import Attempts
from ._routed import RoutedUnit, Terms
from ._twophase import Together
from ._unit import UnitOfWork
from .errors import DeadlineExceededError, UsageError
from .options import NO_OPTIONS, TransactionOptions, asked

if TYPE_CHECKING:
    from ._source import Source

__all__ = ["RequestUnit", "State", "Unwind"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110, 9.2.1


_STREAMS = (
    "the response starts while a transaction that has written is kept open, by "
    "stream=True or by a server-side cursor: it could be committed only after the "
    "client was told. Stream from a unit of its own: "
    "`async with db.transaction() as session:`"
)
_UNDONE = (Outcome.ROLLED_BACK, Outcome.EMPTY)


class Unwind(BaseException):
    """Unwinds the application: a muted one would still run its background tasks."""


class RequestUnit(RoutedUnit):
    """The unit of one request and its response."""

    _task: asyncio.Task[Any] | None = None
    """The one that runs the application, if somebody may have to cancel it."""
    _deadline: Deadline | None = None
    _attempts: Attempts | None = None
    """Set if it may have to be run again."""
    _irrevocable: str | None = None
    _again = False
    """Whether the failure is one for which the request is to be run once more."""
    _leaving: asyncio.Task[None] | None = None
    _verdict: Verdict | None = None

    def __init__(
        self,
        sources: Mapping[str, Source],
        parent: UnitOfWork | None,
        scope: Scope,
        receive: Receive,
        send: Send,
        terms: Terms,
        outer_state: MutableMapping[str, Any] | None,
    ) -> None:
        # All in one place: to call each class's own would take twice the time.
        self._sources = sources
        self._parent = parent
        self._scope = scope
        self._terms = terms
        self._receive = receive
        self._send = send
        self._outer_state = outer_state
        self._before = sys.exception()
        self._started = False
        """Whether the start of a response has been handed to the server."""
        self._failure: Exception | None = None
        """What the client must hear of instead of the response."""
        self._body: Message | Recording | None = None
        # What is looked at with each message is found faster here than in the class.
        self._used = False
        self._ended = False
        if terms.order is not None:
            self._together = Together(terms.order)
        if asked.deadline:
            self._task = asyncio.current_task()

    @property
    def _may_write(self) -> bool:
        read_only = self._options.read_only
        if read_only is None:
            return self._scope["method"] not in SAFE_METHODS
        return not read_only

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            if self._body is None:
                self._body = message
            else:
                limit = self._terms.retry.body_limit
                self._body = record(self._body, message, limit)
        elif self._started and self._leases is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave_stream())
        return message

    def send_after_commit(self, message: Message) -> Awaitable[None]:
        """Hand *message* on, after what has to come before it.

        No coroutine function: where nothing has to, the server's own is enough.
        """
        if self._failure is not None:
            raise Unwind
        kind = message["type"]
        if kind == "http.response.start":
            if not self._started:
                self._start = message
                # A handler sends its response while it handles the exception.
                self._exception = sys.exception()
                if self._used and self._has_to_end():
                    return self._end_and_send(message, streaming=False)
                error = self._squashed if self._attempts is not None else None
                if error is not None and self._should_retry(error):
                    raise Unwind  # there is nothing to roll back: a block inside failed
                self._started = True
                if self._outer_state is not None and self._scope["state"]:
                    self._show_state()
        elif kind in _LAST and not message.get("more_body"):
            # What is begun while the chunk leaves would be lost, so nothing may be.
            if not self._used:
                self._ended = True
            elif self._has_to_end():
                return self._end_and_send(message, streaming=True)
            else:
                self._end()
        return self._send(message)

    def _show_state(self) -> None:
        """Outer middleware holds the server's dict: show it what is in ours."""
        if self._outer_state is not None:
            self._outer_state.update(self._scope["state"])

    def _has_to_end(self) -> bool:
        if self._pending:
            return True
        self._leave()
        return False

    async def _end_and_send(self, message: Message, *, streaming: bool) -> None:
        """Commit or roll back what is open, before anybody hears of it.

        When the response starts (what is being *streamed* keeps its transaction), and
        when its last chunk is about to leave.
        """
        options = self._options
        try:
            if options is not NO_OPTIONS:
                check_in_time(self)
            verdict = self._judge(options)
        except Exception as error:
            await self._drop(f"{type(error).__name__} was raised")
            self._fail(error)
        failed = not verdict.commit or self._start["status"] >= 400
        if failed and self._should_retry(self._squashed):
            await self._drop("it is tried again")
            raise Unwind
        commits = verdict.commit and not streaming
        if commits and self._streams_what_it_wrote(hold=options.stream):
            await self._drop("it would have to be committed later")
            self._fail(UsageError(_STREAMS))
        ending = finish_unit(
            self,
            commit=verdict.commit,
            reason=verdict.reason,
            streaming=streaming,
            may_lose=self._start["status"] >= 400,
        )
        try:
            await self._run(ending)
        except Exception as error:
            self._fail(error)
        self._settle(None)
        if streaming:
            self._end()
        else:
            self._started = True
            if self._outer_state is not None and self._scope["state"]:
                self._show_state()
        await self._send(message)

    async def _drop(self, reason: str) -> None:
        try:
            await self._run(finish_unit(self, commit=False, reason=reason))
        except Exception as error:
            self._fail(error)

    def _streams_what_it_wrote(self, *, hold: bool | None) -> bool:
        """Whether what stays open has written; *hold* all that is open as a stream."""
        for lease in (self._leases or {}).values():
            if hold:
                lease.held = lease.open
            if lease.streaming and lease.wrote:
                return True
        return False

    def _judge(self, options: TransactionOptions) -> Verdict:
        """Decide once; what the unit itself asks for later still counts."""
        if self._verdict is None or self._doomed is not None:
            ending = Ending(
                status=self._start["status"],
                exception=self._squashed,
                method=self._scope["method"],
                path=self._scope["path"],
            )
            self._verdict = judge(
                ending,
                options.commit_when or self._terms.commit_when,
                doomed=self._doomed,
                commit_anyway=self._commit_anyway,
            )
        return self._verdict

    @property
    def _squashed(self) -> BaseException | None:
        """The exception that a handler has made into the response."""
        return None if self._exception is self._before else self._exception

    def _follow(self, attempts: Attempts) -> None:
        """Be the next of the *attempts* at the request, and maybe the first."""
        self._attempts = attempts
        if attempts.tries is not None:
            self._attempt = attempts.tries.attempt
        self._deadline = attempts.deadline
        if self._deadline is not None and self._task is not None:
            self._deadline.watch(self._task, self._expire)

    def _should_retry(self, error: BaseException | None) -> bool:
        """Whether the request is to be run once more: asked before the rollback.

        Because of *error*, or of what the application made something else of: a
        response, an exception of its own. Not once anybody has heard of it.
        """
        self._look_at_commits(error)
        attempts = self._attempts
        if attempts is None or self._failure is not None or not self._may_be_retried:
            return False
        retry = self._terms.retry
        lines = [x for lease in (self._leases or {}).values() for x in lease.lines]
        found = retry.retryable(error, *(line.failure for line in lines))
        if found is None:
            return False
        if attempts.next(retry, self._options.attempts or 1):
            self._again = True
            self._failure = error if isinstance(error, Exception) else found
        return self._again

    @property
    def _is_repeatable(self) -> bool:
        if self._started or self._attempts is None:
            return False
        if self._result is not None and self._result[0] not in _UNDONE:
            return False
        if not is_kept(self._body, self._terms.retry.body_limit):
            return False
        if self._parent is not None and self._parent._is_in_a_retry:
            return False  # or both would count
        return super()._is_repeatable

    def _note_attempts(self, error: BaseException) -> None:
        if self._attempts is not None and self._attempts.tries is not None:
            self._attempts.tries.note(error)

    def _keep_time(self) -> None:
        limit = self._options.deadline
        if limit is not None and self._deadline is None and self._task is not None:
            self._deadline = Deadline(limit)
            if self._attempts is not None:
                self._attempts.deadline = self._deadline
            self._deadline.watch(self._task, self._expire)

    def _expire(self) -> bool | None:
        """Give up, as the deadline has passed; but what is committed stands."""
        if self._started or self._committing or self._ended:
            return False
        if self._result is not None and self._result[0] is not Outcome.EMPTY:
            return False
        open_leases = self._open_leases()
        if any(lease.commits_by_hand for lease in open_leases):
            return None
        assert self._deadline is not None
        undone = "what it had not committed by hand" if self._by_hand else "it"
        self._failure = DeadlineExceededError(
            f"the request was not done within {self._deadline.limit:g} seconds, its "
            f"deadline; {undone} was rolled back"
        )
        self._again = False
        self._refuse()
        for lease in open_leases:
            if not lease.is_async and lease.busy:
                lease.discard()  # nothing else could stop its thread
        return True

    def _takes_over(self, error: BaseException) -> bool:
        """Whether the client is to hear of something else than *error*, which escapes.

        Called before the rollback, after which an error could not be told any more.
        """
        ours = False
        if self._deadline is not None and self._task is not None:
            ours = self._deadline.stop(self._task)
        if self._failure is None:
            if isinstance(error, Exception) and self._should_retry(error):
                return True
            self._note_attempts(error)
            return False
        if isinstance(error, asyncio.CancelledError):
            return ours
        # Otherwise told to exit while it was unwound.
        return isinstance(error, Exception | Unwind | BaseExceptionGroup)

    def _fail(self, error: Exception) -> NoReturn:
        if not self._should_retry(error):
            self._failure = error
            self._note_attempts(error)
        raise Unwind from error

    async def _abandon(self, reason: str) -> None:
        """Roll back what is open: the application has left, one way or the other."""
        if self._leaving is not None:
            await self._left()
        if self._pending:
            await self._run(finish_unit(self, commit=False, reason=reason))

    async def _leave_stream(self) -> None:
        """Roll back what a stream has begun, now that its client has left.

        What runs later in the same task (a background task) must find the sessions
        closed. First the stream itself has to hear that it was cancelled: its task
        group tells it in this round of the event loop, and goes on in the next but one.
        """
        await asyncio.sleep(0)
        self._refuse()
        if self._pending:
            await self._run(finish_unit(self, commit=False, reason="the client left"))
        self._refuse()

    async def _left(self) -> None:
        async def join(task: asyncio.Task[None]) -> None:
            await asyncio.wait((task,))

        assert self._leaving is not None
        await uninterrupted(join(self._leaving))

    async def _close(self) -> None:
        """End for good, and forget the request.

        An asyncio transport would keep it otherwise: see `_end`.
        """
        if self._deadline is not None and self._task is not None:
            self._deadline.stop(self._task)
        if self._leaving is not None:
            await self._left()
        if self._leases:
            self._end()
        self._receive, self._send = _nothing, _too_late
        self._outer_state = self._exception = self._before = self._task = None


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _too_late(message: Message) -> None:
    raise UsageError("the request is over: nothing can be sent any more")


_LAST = frozenset(
    {"http.response.body", "http.response.zerocopysend", "http.response.pathsend"}
)


class State(dict[str, Any]):
    """`scope["state"]`, in which the sessions appear when somebody asks for them."""

    __slots__ = ("unit",)

    unit: UnitOfWork

    def __missing__(self, key: str) -> Any:
        unit: UnitOfWork | None = self.unit
        while unit is not None:
            if (source := unit._sources.get(key)) is not None:
                return unit._lease(source).session
            unit = unit._parent  # of a middleware further out
        raise KeyError(key)
