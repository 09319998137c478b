"""Requests that are run again: whether, when, and how."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .._concurrency.deadline import Deadline
from ..retry import RetryPolicy, Tries
from .exception_handlers import answer
from .replay import InContext, ReceiveAhead, Snapshot
from .types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from .exchange import HTTPExchange

__all__ = ["Retries", "run_again"]


class Retries:
    """What the attempts at one request have in common, from the first failure on."""

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


async def run_again(
    app: ASGIApp, failed: HTTPExchange, scope: Scope, send: Send
) -> None:
    """Run the request of *failed* again, until an attempt is the last one."""
    retries = failed.retries
    assert retries is not None
    receive: Receive = retries.receive
    try:
        while True:
            error, receive = failed.take_failure(receive)
            if await retries.client_leaves(error):
                error.add_note("unitwork: not tried again, as the client has left")
                await answer(error, scope, receive, send)
                return
            retries.snapshot.restore(scope)
            exchange = failed.next_attempt(scope, receive, send)
            await InContext(retries.snapshot.context(), exchange.serve(app))
            if not exchange.is_to_be_retried:
                await exchange.answer_failure(scope, receive, send)
                return
            failed = exchange
    finally:
        await retries.receive.close()
