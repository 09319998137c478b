"""What tasks and threads do with one session at the moment, and who may."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import IllegalStateChangeError

from .._concurrency.worker import current_worker
from .._transaction.transaction_state import TransactionState

if TYPE_CHECKING:
    from .._transaction.loan import Loan

__all__ = ["Activity"]

T = TypeVar("T")

_FLUSHING = (
    "another task or thread flushes this session: `session.commit()` would not flush "
    "your changes. Await what you start, or give it a unit of its own: "
    "`db.transaction()`"
)
_RESERVED = (
    "the COMMIT of this session's unit of work is under way, in another task or "
    "thread: what runs beside it can't be a part of it. Give it a unit of its own: "
    "`db.transaction()`"
)


class Activity:
    """The statements and flushes of a session that are under way.

    An ending reserves the session for its own step, and then looks whether others are
    at work in it. They do it the other way round: they are counted, and then look
    whether it is reserved. So one of both notices the other, whatever the order.
    """

    __slots__ = (
        "_flushes",
        "_loans",
        "_reads",
        "found_open",
        "is_beginning",
        "is_reserved",
        "step_of",
    )

    def __init__(self, loans: Sequence[Loan]) -> None:
        self._loans = loans
        self._flushes = 0
        self._reads = 0
        """Of those that give their connection back, which is a part of each."""
        self.step_of: object = None
        """The task or thread that makes a step of the ending, while it does."""
        self.found_open = False
        """Whether the statement that connects has found a transaction open."""
        self.is_beginning = False
        """Whether BEGIN is under way."""
        self.is_reserved = False
        """Whether only the ending may execute statements."""

    @property
    def is_under_way(self) -> bool:
        """Whether a statement, a flush, or BEGIN is under way."""
        if self.is_beginning or self._flushes or self._reads:
            return True
        for loan in self._loans:
            if loan.statements_in_flight:
                return True
        return False

    @property
    def is_being_ended(self) -> bool:
        """Whether a COMMIT or ROLLBACK waits for its answer."""
        for loan in self._loans:
            if loan.state is TransactionState.ENDING:
                return True
        return False

    def check_commit(self) -> None:
        """Raise `IllegalStateChangeError` if the application's would flush nothing."""
        if self._flushes:
            raise IllegalStateChangeError(_FLUSHING)

    @property
    def is_flushing(self) -> bool:
        return self._flushes > 0

    def reserve(self) -> None:
        """Keep others from the session; raise if one of them is at work in it.

        `IllegalStateChangeError`: the ending tries again a moment later.
        """
        self.is_reserved = True
        if self.is_under_way or self.is_being_ended:
            self.is_reserved = False
            raise IllegalStateChangeError("another task or thread uses the session")

    def check(self) -> None:
        """Raise `IllegalStateChangeError` if only the ending may use the session."""
        if self.is_reserved and not self.is_own_step:
            raise IllegalStateChangeError(_RESERVED)

    @property
    def is_own_step(self) -> bool:
        """Whether the caller is a step of the ending."""
        return self.step_of is current_worker()

    def make_step(self, call: Callable[..., T], *args: object) -> T:
        """Make *call*, a step of the ending, in this task or thread."""
        self.step_of = current_worker()
        try:
            return call(*args)
        finally:
            self.step_of = None

    async def go_on(self, awaitable: Awaitable[T]) -> T:
        """Await it for the step that is under way, in another task than the step's."""
        before, self.step_of = self.step_of, current_worker()
        try:
            return await awaitable
        finally:
            self.step_of = before

    def flush(self, call: Callable[..., T], *args: object, **kwargs: object) -> T:
        """Make *call*, a flush, unless the session is reserved."""
        self._flushes += 1
        try:
            if self.is_reserved:
                self.check()
            return call(*args, **kwargs)
        finally:
            self._flushes -= 1

    def read(self, call: Callable[[], T]) -> T:
        """Make *call*, a read that gives its connection back, likewise."""
        self._reads += 1
        try:
            if self.is_reserved:
                self.check()
            return call()
        finally:
            self._reads -= 1
