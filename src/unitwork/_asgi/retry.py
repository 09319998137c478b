"""What the attempts at one request have in common."""

from __future__ import annotations

import math

from .._concurrency.deadline import Deadline
from ..retry import RetryPolicy, Tries
from .replay import ReceiveAhead, Snapshot
from .types import Receive

__all__ = ["Retries"]


class Retries:
    """The attempts at one request, counted from the first failure on."""

    __slots__ = ("deadline", "receive", "snapshot", "tries")

    def __init__(
        self,
        policy: RetryPolicy,
        attempts: int,
        *,
        snapshot: Snapshot,
        receive: Receive,
        client_has_left: bool,
        deadline: Deadline | None,
    ) -> None:
        self.snapshot = snapshot
        self.receive = ReceiveAhead(receive, client_has_left=client_has_left)
        self.deadline = deadline
        until = math.inf if deadline is None else deadline.until
        self.tries = Tries(policy, attempts, until)

    async def client_leaves(self, error: Exception) -> bool:
        """Wait until the next attempt begins; say whether the client leaves before."""
        seconds = self.tries.announce(error, self.snapshot.scope["path"])
        return await self.receive.ends_within(seconds)
