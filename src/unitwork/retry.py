"""Retries: how many, how long the waits are, and which errors are retryable."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm.exc import StaleDataError

from ._callables import check_callable, returned_plainly
from ._classify.classification import Rule, classify
from .errors import UsageError

__all__ = ["Retry", "RetryPolicy"]

_TIMES = ("first_wait", "longest_wait", "give_up_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """An attempt that has failed and is about to be followed by another one.

    *attempt* of *attempts* has failed with *error*; *wait* seconds from now the next
    one begins. *path* is the request's, or empty.

    .. versionadded:: 0.1
    """

    attempt: int
    attempts: int
    wait: float
    error: BaseException = field(repr=False)
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How work with more than one of `attempts` is retried. Times in seconds.

    *first_wait* and *longest_wait*: the n-th wait lasts, at random, up to
    `first_wait * 2 ** (n - 1)`, but never longer than `longest_wait`.
    *give_up_after*: no attempt begins later than that after the first failure.
    *body_limit*, in bytes: a request with a larger body is not run a second time; the
    body is kept in memory until the response starts, if its route has `attempts`.
    *stale_data*: a `StaleDataError` of SQLAlchemy is retryable, too: the row, which has
    a version (`version_id_col`), was changed or deleted since it was read. The whole
    request is run again with what is stored now, so it must not rely on a version that
    the client has sent.
    *rules* classify an error before unitwork does: see `classify()`.
    *before_retry* is called with a `Retry` before each wait, for logs and metrics; in
    the thread or event loop of the work, so it must not block. What it raises
    propagates.

    Raises `UsageError` for a time or size that is negative, and for a coroutine
    function.

    .. versionadded:: 0.1
    """

    first_wait: float = 0.02
    longest_wait: float = 1.0
    give_up_after: float = 10.0
    body_limit: int = 2**20
    stale_data: bool = False
    rules: Sequence[Rule] = ()
    before_retry: Callable[[Retry], object] | None = None

    def __post_init__(self) -> None:
        for key in (*_TIMES, "body_limit"):
            value = getattr(self, key)
            if not isinstance(value, int | float) or not value >= 0:  # NaN is neither
                raise UsageError(f"{key} is {value!r}; give a number, 0 or more")
        for rule in self.rules:
            check_callable("each of rules", rule)
        if self.before_retry is not None:
            check_callable("before_retry", self.before_retry)

    def wait_after(self, attempt: int) -> float:
        """Seconds to wait after the failed *attempt*.

        Source: "Exponential Backoff And Jitter", AWS Architecture Blog: full jitter.
        """
        if not waits.on:
            return 0.0
        longest = min(self.longest_wait, self.first_wait * 2.0 ** min(attempt - 1, 60))
        return random.uniform(0.0, longest)  # no secret

    def retryable(self, *errors: BaseException | None) -> Exception | None:
        """The first of *errors* that may be retried: it has stored nothing."""
        for error in errors:
            if not isinstance(error, Exception):
                continue
            if self.stale_data and isinstance(error, StaleDataError):
                return error
            if classify(error, rules=self.rules).retryable:
                return error
        return None


_DEFAULT = RetryPolicy()


def policy_of(given: RetryPolicy | None) -> RetryPolicy:
    """The policy that *given* stands for; `UsageError` for anything else."""
    if given is None:
        return _DEFAULT
    if not isinstance(given, RetryPolicy):
        raise UsageError(
            f"retry is {given!r}; give a RetryPolicy. The number of attempts is an "
            "option of a transaction: attempts="
        )
    return given


class _Waits:
    """The one switch that turns all waits off: see `unitwork.testing.no_waits()`."""

    on = True


waits = _Waits()


class Tries:
    """The attempts at one piece of work, counted from 1."""

    __slots__ = (
        "_deadline",
        "_until",
        "_wait",
        "attempt",
        "attempts",
        "avoids_replicas",
        "policy",
        "seconds_used",
    )

    def __init__(
        self, policy: RetryPolicy, attempts: int, deadline: float = math.inf
    ) -> None:
        self.policy = policy
        self._deadline = deadline
        self._until: float | None = None
        self._wait = 0.0
        self.attempts = attempts
        self.attempt = 1
        self.avoids_replicas = False
        """Whether what follows reads from the primary alone: a replica has failed."""
        self.seconds_used: dict[str, float] = {}
        """How long the attempts that have failed used each database, by its name."""

    def next(self) -> bool:
        """Count another attempt; return `False` if there must be none."""
        now = time.monotonic()
        if self._until is None:
            self._until = min(now + self.policy.give_up_after, self._deadline)
        self._wait = self.policy.wait_after(self.attempt)
        if self.attempt >= self.attempts or now + self._wait > self._until:
            return False
        self.attempt += 1
        return True

    def next_without_replicas(self) -> bool:
        """Count another attempt, at once, and one more than there are otherwise."""
        self.attempts += 1
        before, self.avoids_replicas = self.avoids_replicas, True
        if not before and self.next():
            self._wait = 0.0
            return True
        self.attempts -= 1
        return False

    def announce(self, error: BaseException, path: str = "") -> float:
        """Call `before_retry`; return the delay in seconds."""
        if self.policy.before_retry is not None:
            failed = self.attempt - 1
            result = self.policy.before_retry(
                Retry(
                    attempt=failed,
                    attempts=self.attempts,
                    wait=self._wait,
                    error=error,
                    path=path,
                )
            )
            returned_plainly("before_retry", result)
        return self._wait

    def note(self, error: BaseException) -> None:
        """Add to *error*, which ends the attempts, a note of their number."""
        if self.attempt > 1:
            error.add_note(
                f"unitwork: this was attempt {self.attempt} of {self.attempts}"
            )
