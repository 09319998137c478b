"""The states of a response: which may follow which."""

from __future__ import annotations

from itertools import product

import pytest

from unitwork import RetryPolicy
from unitwork._asgi.exchange import HTTPExchange
from unitwork._asgi.route_options import MiddlewareConfig
from unitwork._asgi.state import ResponseState
from unitwork._asgi.types import Message
from unitwork._unit.state import IllegalMove
from unitwork.outcome import succeeded

pytestmark = pytest.mark.anyio

WAITING, STARTED, COMPLETE, REPLACED, RETRY, CUT_SHORT = ResponseState
LEGAL = {
    (WAITING, STARTED),
    (WAITING, COMPLETE),
    (WAITING, REPLACED),
    (WAITING, RETRY),
    (STARTED, COMPLETE),
    (STARTED, CUT_SHORT),
    (RETRY, REPLACED),
}
CONFIG = MiddlewareConfig(succeeded, None, RetryPolicy())
PAIRS = list(product(ResponseState, repeat=2))


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(message: Message) -> None:
    pass


def exchange_in(state: ResponseState) -> HTTPExchange:
    scope = {"type": "http", "method": "GET", "path": "/"}
    exchange = HTTPExchange(scope, receive, send, CONFIG, {}, None, None)
    exchange.response = state
    return exchange


@pytest.mark.parametrize(("old", "new"), sorted(LEGAL))
async def test_a_response_moves_on(old: ResponseState, new: ResponseState) -> None:
    exchange = exchange_in(old)
    exchange.move(new)
    assert exchange.response is new


@pytest.mark.parametrize(("old", "new"), [p for p in PAIRS if p not in LEGAL])
async def test_a_response_makes_no_other_move(
    old: ResponseState, new: ResponseState
) -> None:
    exchange = exchange_in(old)

    with pytest.raises(IllegalMove, match=f"{old.name} can't be {new.name}"):
        exchange.move(new)

    assert exchange.response is old


@pytest.mark.parametrize("state", ResponseState)
def test_a_response_has_started_once_the_client_has_seen_it(
    state: ResponseState,
) -> None:
    assert state.has_started is (state in (STARTED, COMPLETE, CUT_SHORT))
