"""Retries: what is reported, and what is around them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from support.asgi import Message, call, http_scope
from support.conflicts import Conflict, Race
from support.failing import NOW, THREE, Failing, request
from support.flavours import FEW, Flavour
from support.models import names
from unitwork import (
    DBSessionMiddleware,
    MissingSessionError,
    Retry,
    RetryPolicy,
    current_unit,
)

pytestmark = pytest.mark.anyio


# What is reported


@FEW
@pytest.mark.parametrize("handled", [True, False])
async def test_before_retry_is_called_for_each_failure(
    flavour: Flavour, handled: bool
) -> None:
    async def busy(request: Request, error: Exception) -> Response:
        return JSONResponse("busy", 503)

    errors = [Conflict("first"), Conflict("second")]
    failing = Failing(2, lambda: errors[len(failing.calls) - 1])
    reported: list[Retry] = []
    policy = RetryPolicy(longest_wait=0, before_retry=reported.append)
    handlers = {Conflict: busy} if handled else None

    reply = await request(flavour, failing, retry=policy, handlers=handlers)

    assert reply.json == 3
    assert [(each.attempt, each.attempts) for each in reported] == [(1, 3), (2, 3)]
    assert [each.error for each in reported] == errors
    assert [(each.path, each.wait) for each in reported] == [("/", 0), ("/", 0)]


@FEW
async def test_it_is_called_with_no_unit_around(flavour: Flavour) -> None:
    reported: list[Any] = []

    def look(retry: Retry) -> None:
        with pytest.raises(MissingSessionError):
            current_unit()
        reported.append(flavour.db.pool_status().checked_out)

    policy = RetryPolicy(longest_wait=0, before_retry=look)

    assert (await request(flavour, Failing(1), retry=policy)).json == 2
    assert reported == [0]


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
