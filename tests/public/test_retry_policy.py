"""Retries: how often, how long between, who is told, and how the last one ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from sqlalchemy.orm import Session
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from support.asgi import Message, Reply, call, http_scope
from support.conflicts import Conflict, Race
from support.endpoints import serve_fastapi
from support.flavours import Flavour, only
from support.models import add_item, names
from support.websocket import Socket
from unitwork import (
    Classification,
    DBSessionMiddleware,
    Kind,
    MissingSessionError,
    Retry,
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

FEW = only("sqlite3", "asyncpg")
"""Enough where no driver has a say; sync and async, and both databases."""
THREE = TransactionOptions(attempts=3)
NOW = RetryPolicy(longest_wait=0)
Body = Callable[[Session], Any]


class Failing:
    """A body that fails as often as *times* says, with *error*."""

    def __init__(self, times: int, error: Callable[[], Exception] = Conflict) -> None:
        self.times = times
        self.error = error
        self.calls: list[Any] = []

    def __call__(self, session: Session) -> int:
        add_item(session)
        unit = current_unit()
        self.calls.append((unit.attempt, unit.is_last_attempt))
        if len(self.calls) <= self.times:
            raise self.error()
        return unit.attempt


async def request(flavour: Flavour, body: Body, **options: Any) -> Reply:
    options = {"options": THREE, "retry": NOW, **options}
    return await call(serve_fastapi(flavour, body, **options), "POST", "/")


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
    flavour: Flavour, path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitwork.options.asked.attempts", False)  # nobody has, yet

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


# Who is told


@FEW
@pytest.mark.parametrize("handled", [True, False])
async def test_before_retry_is_called_for_each_failure(
    flavour: Flavour, handled: bool
) -> None:
    async def busy(request: Request, error: Exception) -> Response:
        return JSONResponse("busy", 503)

    errors = [Conflict("first"), Conflict("second")]
    failing = Failing(2, lambda: errors[len(failing.calls) - 1])
    told: list[Retry] = []
    policy = RetryPolicy(longest_wait=0, before_retry=told.append)
    handlers = {Conflict: busy} if handled else None

    reply = await request(flavour, failing, retry=policy, handlers=handlers)

    assert reply.json == 3
    assert [(each.attempt, each.attempts) for each in told] == [(1, 3), (2, 3)]
    assert [each.error for each in told] == errors
    assert [(each.path, each.wait) for each in told] == [("/", 0), ("/", 0)]


@FEW
async def test_it_is_called_with_no_unit_around(flavour: Flavour) -> None:
    told: list[Any] = []

    def look(retry: Retry) -> None:
        with pytest.raises(MissingSessionError):
            current_unit()
        told.append(flavour.db.pool_status().checked_out)

    policy = RetryPolicy(longest_wait=0, before_retry=look)

    assert (await request(flavour, Failing(1), retry=policy)).json == 2
    assert told == [0]


@FEW
async def test_what_it_raises_is_raised_on(flavour: Flavour) -> None:
    def refuse(retry: Retry) -> None:
        raise LookupError

    failing = Failing(1)
    reply = await request(flavour, failing, retry=RetryPolicy(before_retry=refuse))

    assert (type(reply.error), len(failing.calls)) == (LookupError, 1)


# What is around it


@FEW
async def test_a_client_that_leaves_while_it_sends_its_body(flavour: Flavour) -> None:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE, retry=NOW)
    calls: list[int] = []

    @app.post("/")
    async def endpoint(request: Request) -> None:
        calls.append(current_unit().attempt)
        await flavour.do(await flavour.db.session(), names)
        await request.body()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    with pytest.raises(ClientDisconnect):
        await app(http_scope("POST", "/"), receive, send)

    assert calls == [1]


@FEW
async def test_a_middleware_in_between_hides_no_real_failure(flavour: Flavour) -> None:
    race = Race(flavour)
    await race.prepare()

    async def pass_on(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response

    async def busy(request: Request, error: Exception) -> Response:
        return JSONResponse("busy", 503)

    app = FastAPI(exception_handlers={Exception: busy})
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    app.add_middleware(
        DBSessionMiddleware, db=flavour.db, options=race.options(), retry=NOW
    )
    app.get("/")(flavour.endpoint(race.run))

    assert (await call(app, "GET", "/")).json == 10
    assert race.attempts == [1, 2]
