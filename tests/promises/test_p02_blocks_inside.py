"""P2: what a block inside a request leaves if that or the block itself failed."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException

from support.asgi import call
from support.failures import OurError, adding, answer_teapot, ok, raising
from support.flavours import Flavour, Observer, everywhere
from support.models import add_item
from unitwork import UnexpectedRollbackError, current_unit

pytestmark = pytest.mark.anyio


def nesting(flavour: Flavour, nested: str, *, fails: bool = True) -> Any:
    """A FastAPI endpoint: an item, then a block that adds one, raises, is swallowed."""
    inner = adding(raising(OurError) if fails else ok, "inner")

    async def endpoint() -> str:
        await flavour.do(flavour.db.current, partial(add_item, name="outer"))
        with suppress(OurError):
            await flavour.work(inner, nested=nested)
        return "fine"

    return endpoint


@everywhere
async def test_an_error_swallowed_around_a_joined_block_is_no_success(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "join"))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, UnexpectedRollbackError)
    assert isinstance(reply.error.__cause__, OurError)
    assert observer.names() == []


async def test_the_app_can_answer_the_swallowed_error(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "join"))
    app.add_exception_handler(UnexpectedRollbackError, answer_teapot)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (418, True, None)
    assert observer.names() == []


async def test_a_joined_block_that_raised_hides_no_other_error(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.work(adding(raising(HTTPException, 422)), nested="join")

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.error, observer.names()) == (422, None, [])


async def test_commit_anyway_fails_after_a_joined_block_that_raised(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    endpoint = nesting(flavour, "join")

    @app.post("/", status_code=401)
    async def refuse() -> str:
        current_unit().commit_anyway()
        await endpoint()
        return "no"

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert (reply.status, observer.names()) == (500, [])


@everywhere
async def test_nothing_is_committed_by_hand_after_a_joined_block_that_raised(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    endpoint = nesting(flavour, "join")

    @app.post("/")
    async def commit() -> None:
        await endpoint()
        with pytest.raises(UnexpectedRollbackError):
            await flavour.do(flavour.db.current, lambda session: session.commit())

    reply = await call(app, "POST", "/")

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert observer.names() == []


@everywhere
async def test_an_error_swallowed_around_a_savepoint_costs_the_savepoint_alone(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    app.post("/")(nesting(flavour, "savepoint"))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["outer"])


@everywhere
@pytest.mark.parametrize("nested", ["join", "savepoint"])
async def test_a_block_inside_the_request_is_lost_with_it(
    app: FastAPI, flavour: Flavour, observer: Observer, nested: str
) -> None:
    endpoint = nesting(flavour, nested, fails=False)

    @app.post("/")
    async def fail() -> None:
        await endpoint()
        raise HTTPException(400)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (400, [])


@everywhere
async def test_a_block_of_its_own_stays_though_the_request_fails(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        await flavour.work(partial(add_item, name="audit"), nested="own")
        await flavour.do(flavour.db.current, add_item)
        raise HTTPException(400)

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (400, ["audit"])


async def test_a_block_of_its_own_that_raised_costs_the_request_nothing(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    @app.post("/")
    async def endpoint() -> None:
        with pytest.raises(OurError):
            await flavour.work(adding(raising(OurError)), nested="own")
        await flavour.do(flavour.db.current, partial(add_item, name="mine"))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, ["mine"])
