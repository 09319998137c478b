"""P2: what counts as a failure, by the policy and by what the unit says."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.responses import Response

from support.asgi import Message, call
from support.endpoints import serve_fastapi, serve_starlette
from support.failures import (
    OurError,
    PolicyError,
    adding,
    answer_ok,
    answer_teapot,
    ok,
    raising,
)
from support.flavours import FEW, Flavour, Observer, everywhere
from support.models import add_item
from unitwork import DBSessionMiddleware, Ending, Outcome, UnitOfWork, current_unit

pytestmark = pytest.mark.anyio


FRAMEWORKS = [serve_fastapi, serve_starlette]

HANDLERS = {OurError: answer_ok, PolicyError: answer_teapot}


# The policy


@FEW
async def test_the_policy_is_told_what_happened(flavour: Flavour) -> None:
    seen: list[Ending] = []

    def policy(ending: Ending) -> bool:
        seen.append(ending)
        return False

    body = adding(raising(HTTPException, 404))
    app = serve_fastapi(flavour, body, commit_when=policy)
    await call(app, "POST", "/?a=b")

    (ending,) = seen
    assert (ending.status, ending.method, ending.path) == (404, "POST", "/")
    assert isinstance(ending.exception, HTTPException)


@FEW
async def test_the_policy_of_the_middleware_decides(
    flavour: Flavour, observer: Observer
) -> None:
    app = FastAPI()
    app.add_middleware(
        DBSessionMiddleware, db=flavour.db, commit_when=lambda e: e.status != 200
    )
    app.post("/bad")(flavour.endpoint(adding(raising(HTTPException, 400), "bad")))
    app.post("/good")(flavour.endpoint(adding(ok, "good")))

    replies = [await call(app, "POST", path) for path in ("/bad", "/good")]

    assert [reply.status for reply in replies] == [400, 200]
    assert observer.names() == ["bad"]


@FEW
async def test_the_policy_is_asked_once(flavour: Flavour, observer: Observer) -> None:
    asked: list[Ending] = []

    def policy(ending: Ending) -> bool:
        asked.append(ending)
        return True

    async def bare(scope: Message, receive: Any, send: Any) -> None:
        session = await flavour.db.session(scope)
        await flavour.do(session, partial(add_item, name="before"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await flavour.do(session, partial(add_item, name="meanwhile"))
        await send({"type": "http.response.body", "body": b""})

    app = DBSessionMiddleware(bare, flavour.db, commit_when=policy)
    await call(app, "POST", "/")

    assert len(asked) == 1
    assert observer.names() == ["before", "meanwhile"]


@FEW
@pytest.mark.parametrize("serve", FRAMEWORKS)
async def test_a_policy_that_raises_rolls_back_and_is_answered_by_the_handlers(
    flavour: Flavour, observer: Observer, serve: Any
) -> None:
    def policy(ending: Ending) -> bool:
        raise PolicyError

    app = serve(flavour, adding(ok), handlers=HANDLERS, commit_when=policy)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (418, True)
    assert reply.json == {"error": "PolicyError"}
    assert observer.names() == []


# What the unit says


@everywhere
async def test_rollback_only_keeps_the_response_and_drops_the_work(
    flavour: Flavour, observer: Observer
) -> None:
    units: list[UnitOfWork] = []

    def dry_run() -> Response:
        units.append(current_unit())
        current_unit().rollback_only("dry run")
        return ok()

    reply = await call(serve_fastapi(flavour, adding(dry_run)), "POST", "/")

    assert (reply.status, reply.body, observer.names()) == (200, b"ok", [])
    assert (units[0].outcome, units[0].reason) == (Outcome.ROLLED_BACK, "dry run")


FORBIDDEN = [
    pytest.param(raising(HTTPException, 401), id="raised"),
    pytest.param(partial(JSONResponse, {}, 401), id="returned"),
]


@FEW
@pytest.mark.parametrize("serve", FRAMEWORKS)
@pytest.mark.parametrize("refuse", FORBIDDEN)
async def test_commit_anyway_counts_the_failed_log_in(
    flavour: Flavour, observer: Observer, serve: Any, refuse: Any
) -> None:
    def log_in(session: Session) -> Any:
        add_item(session, "failed log-in")
        current_unit().commit_anyway()
        return refuse()

    reply = await call(serve(flavour, log_in), "POST", "/")

    assert (reply.status, observer.names()) == (401, ["failed log-in"])


async def test_commit_anyway_does_not_help_an_exception_nobody_handles(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().commit_anyway()
        raise OurError

    reply = await call(serve_fastapi(flavour, body), "POST", "/")

    assert (reply.status, observer.names()) == (500, [])


@FEW
@pytest.mark.parametrize("refuse", FORBIDDEN)
@pytest.mark.parametrize("order", ["rollback first", "commit first"])
async def test_rollback_only_wins_over_commit_anyway(
    flavour: Flavour, observer: Observer, refuse: Any, order: str
) -> None:
    def both() -> Any:
        calls = [current_unit().rollback_only, current_unit().commit_anyway]
        for ask in calls if order == "rollback first" else reversed(calls):
            ask()
        return refuse()

    reply = await call(serve_fastapi(flavour, adding(both)), "POST", "/")

    assert (reply.status, observer.names()) == (401, [])


async def test_rollback_only_from_a_before_commit_hook_counts(
    flavour: Flavour, observer: Observer
) -> None:
    def late() -> Response:
        unit = current_unit()
        unit.before_commit(unit.rollback_only, "checked: no")
        return ok()

    reply = await call(serve_fastapi(flavour, adding(late)), "POST", "/")

    assert (reply.status, observer.names()) == (200, [])
