"""Retries: how often, who asks, how long between, and which."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from support.asgi import Message, call
from support.conflicts import Conflict
from support.endpoints import serve_fastapi
from support.failing import NOW, THREE, Failing, request
from support.flavours import FEW, Flavour, only
from support.websocket import Socket
from unitwork import (
    Classification,
    DBSessionMiddleware,
    Kind,
    RetryPolicy,
    TransactionOptions,
    UsageError,
    current_unit,
    transactional,
)
from unitwork.fastapi import transaction_options
from unitwork.retry import Tries
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio


# How often


@FEW
async def test_the_last_attempt_may_succeed(flavour: Flavour) -> None:
    failing = Failing(2)

    assert (await request(flavour, failing)).json == 3
    assert failing.calls == [(1, False), (2, False), (3, True)]


@FEW
async def test_the_last_failure_is_raised_as_it_was_with_a_note(
    flavour: Flavour,
) -> None:
    errors = [Conflict(str(number)) for number in range(3)]
    failing = Failing(3, lambda: errors[len(failing.calls) - 1])

    reply = await request(flavour, failing)

    assert (reply.status, reply.error) == (500, errors[2])
    assert errors[2].__notes__ == ["unitwork: this was attempt 3 of 3"]
    assert not any(hasattr(error, "__notes__") for error in errors[:2])


@FEW
async def test_another_failure_ends_it(flavour: Flavour) -> None:
    failing = Failing(3, lambda: (Conflict if len(failing.calls) < 2 else KeyError)())

    reply = await request(flavour, failing)

    assert (type(reply.error), len(failing.calls)) == (KeyError, 2)
    assert reply.error is not None
    assert reply.error.__notes__ == ["unitwork: this was attempt 2 of 3"]


@FEW
async def test_what_would_fail_again_is_raised_at_once(flavour: Flavour) -> None:
    failing = Failing(3, KeyError)

    reply = await request(flavour, failing)

    assert (type(reply.error), failing.calls) == (KeyError, [(1, False)])
    assert not hasattr(reply.error, "__notes__")


@FEW
async def test_the_handler_answers_for_the_last_one_alone(flavour: Flavour) -> None:
    failing = Failing(99)

    async def busy(request: Request, error: Exception) -> Response:
        failing.calls.append("handled")
        return JSONResponse("busy", 503)

    reply = await request(flavour, failing, handlers={Conflict: busy})

    assert (reply.status, reply.json, reply.error) == (503, "busy", None)
    assert [call == "handled" for call in failing.calls] == [False, True] * 3


@FEW
async def test_once_is_enough_unless_somebody_asks(flavour: Flavour) -> None:
    failing = Failing(3)

    await request(flavour, failing, options=None)

    assert failing.calls == [(1, True)]


# Who asks


@FEW
async def test_a_route_asks_for_itself(flavour: Flavour) -> None:
    failing = Failing(1)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, retry=NOW)
    app.post("/")(transactional(attempts=2)(flavour.endpoint(failing)))

    assert (await call(app, "POST", "/")).json == 2


@FEW
async def test_a_router_asks_for_its_routes(flavour: Flavour) -> None:
    failing = Failing(1)
    router = APIRouter(dependencies=[Depends(transaction_options(attempts=2))])
    router.post("/")(flavour.endpoint(failing))
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, retry=NOW)
    app.include_router(router)

    assert (await call(app, "POST", "/")).json == 2


@FEW
async def test_a_route_may_want_fewer_than_all(flavour: Flavour) -> None:
    failing = Failing(3)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE, retry=NOW)
    app.post("/")(transactional(attempts=1)(flavour.endpoint(failing)))

    assert type((await call(app, "POST", "/")).error) is Conflict
    assert failing.calls == [(1, True)]


@FEW
@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/?once", 500)])
async def test_a_predicate_says_of_each_request(
    flavour: Flavour, path: str, status: int
) -> None:
    def ask(scope: Message) -> TransactionOptions | None:
        return None if scope["query_string"] else TransactionOptions(attempts=2)

    failing = Failing(1)
    app = serve_fastapi(flavour, failing, options=ask, retry=NOW)

    assert (await call(app, "POST", path)).status == status


@pytest.mark.parametrize("attempts", [0, -1, 1.5, "yes"])
def test_a_number_of_attempts_is_one_or_more(attempts: Any) -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        TransactionOptions(attempts=attempts)


@FEW
async def test_a_plain_block_has_one_attempt(flavour: Flavour) -> None:
    async with flavour.block():
        assert (current_unit().attempt, current_unit().is_last_attempt) == (1, True)


@only("aiosqlite")
async def test_a_websocket_has_one_attempt(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE)

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(current_unit().is_last_attempt))

    async with Socket(app, "/") as socket:
        assert (await socket.receive())["text"] == "True"


# How long between


def test_waits_are_random_and_grow_to_their_limit() -> None:
    policy = RetryPolicy(first_wait=1, longest_wait=10)

    for attempt, longest in enumerate([1, 2, 4, 8, 10, 10], start=1):
        waits = [policy.wait_after(attempt) for _ in range(1000)]
        assert 0 <= min(waits) < longest / 10
        assert longest * 0.9 < max(waits) <= longest
    assert policy.wait_after(10_000) <= 10


def test_nobody_waits_while_a_test_says_so() -> None:
    policy = RetryPolicy(first_wait=60, longest_wait=60)

    with no_waits():
        with no_waits():
            pass
        assert policy.wait_after(5) == 0
    assert max(policy.wait_after(5) for _ in range(100)) > 0


@FEW
async def test_nobody_waits_in_a_request_either(flavour: Flavour) -> None:
    policy = RetryPolicy(first_wait=600, longest_wait=600, give_up_after=0.5)

    with no_waits():
        assert (await request(flavour, Failing(2), retry=policy)).json == 3


@FEW
async def test_no_attempt_begins_after_it_was_given_up(flavour: Flavour) -> None:
    failing = Failing(1)
    policy = RetryPolicy(first_wait=60, longest_wait=60, give_up_after=0)

    reply = await request(flavour, failing, retry=policy)

    assert (type(reply.error), len(failing.calls)) == (Conflict, 1)


@FEW
async def test_no_attempt_begins_after_the_deadline(flavour: Flavour) -> None:
    failing = Failing(1)
    options = TransactionOptions(attempts=3, deadline=5.0)
    policy = RetryPolicy(first_wait=1e9, longest_wait=1e9, give_up_after=1e9)

    reply = await request(flavour, failing, options=options, retry=policy)

    assert (type(reply.error), len(failing.calls)) == (Conflict, 1)


def test_the_time_is_that_since_the_first_failure() -> None:
    tries = Tries(RetryPolicy(longest_wait=0, give_up_after=1e-9), 10)

    assert tries.next()
    before = time.monotonic()
    while time.monotonic() == before:
        pass
    assert not tries.next()


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_wait": -1},
        {"longest_wait": float("nan")},
        {"give_up_after": "soon"},
        {"body_limit": -1},
        {"before_retry": asyncio.sleep},
        {"before_retry": "log"},
        {"rules": ["IntegrityError"]},
    ],
)
def test_a_policy_says_what_is_wrong_with_it(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RetryPolicy(**wrong)


# Which


@FEW
async def test_a_rule_makes_a_failure_retryable(flavour: Flavour) -> None:
    def rule(found: Classification) -> Kind | None:
        return Kind.RETRY if isinstance(found.error, KeyError) else None

    policy = RetryPolicy(longest_wait=0, rules=[rule])

    assert (await request(flavour, Failing(2, KeyError), retry=policy)).json == 3


@FEW
async def test_a_rule_makes_a_failure_final(flavour: Flavour) -> None:
    failing = Failing(2)
    policy = RetryPolicy(longest_wait=0, rules=[lambda found: Kind.NEVER])

    assert type((await request(flavour, failing, retry=policy)).error) is Conflict
    assert len(failing.calls) == 1
