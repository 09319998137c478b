"""Runs a request again after an attempt that is to be retried."""

from __future__ import annotations

from .._observing.unit_events import UnitRetried
from .exchange import HTTPExchange
from .replay import InContext
from .types import ASGIApp, Receive, Scope, Send

__all__ = ["run_again"]


async def run_again(
    app: ASGIApp, failed: HTTPExchange, scope: Scope, send: Send
) -> None:
    """Run the request of *failed* again, until an attempt is the last one."""
    retries = failed.retries
    assert retries is not None
    receive: Receive = retries.receive
    try:
        while True:
            failure, receive = failed.take_failure(receive)
            error = failure.error
            if await retries.client_leaves(error):
                error.add_note("unitwork: not retried: the client has left")
                await failed.answer(failure, scope, receive, send)
                return
            if failed.unit is not None and failed.unit.report is not None:
                failed.unit.report.emit(UnitRetried, error)
            retries.snapshot.restore(scope)
            exchange = failed.next_attempt(scope, receive, send)
            exchange.written_before = failed.written
            await InContext(retries.snapshot.context(), exchange.serve(app))
            if not exchange.is_to_be_retried:
                await exchange.answer_failure(scope, receive, send)
                return
            failed = exchange
    finally:
        await retries.receive.close()
