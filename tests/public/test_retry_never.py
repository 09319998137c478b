"""Retries: what is never run a second time, for a part of it is done."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session

from support.asgi import call
from support.conflicts import Conflict
from support.flavours import FEW, POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import names
from support.tried import THREE, Tried, check_once
from unitwork import (
    DBSessionMiddleware,
    current_unit,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

ROOMY = only("psycopg", "psycopg-async", "asyncpg")
"""Where one unit may write while another does."""
BOTH_WAYS = pytest.mark.parametrize("fault", list(CommitFault))


async def test_without_any_of_what_follows_it_is_run_again(
    tried: Tried, observer: Observer
) -> None:
    assert (await tried.request(tried.write)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 2], ["attempt 2"])


# Another program may have seen it


@FEW
async def test_once_the_response_has_started(flavour: Flavour, tried: Tried) -> None:
    async def stream() -> Any:
        tried.attempts.append(current_unit().attempt)
        yield "begun"
        raise Conflict

    async def endpoint() -> StreamingResponse:
        await tried.write()
        return StreamingResponse(stream())

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db, options=THREE)
    app.post("/")(endpoint)
    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, tried.attempts) == (200, False, [1])


@FEW
async def test_when_an_on_commit_hook_has_run(tried: Tried, observer: Observer) -> None:
    def fail() -> None:
        raise Conflict

    async def hook() -> None:
        tried.attempts.append(0)  # it is the hook that fails, and not the endpoint
        current_unit().on_commit(fail)

    assert (await tried.request(tried.write, hook)).status == 200
    assert (tried.attempts, observer.names()) == ([1, 0], ["attempt 1"])


# It is said to be done


@FEW
async def test_after_side_effect_done(tried: Tried, observer: Observer) -> None:
    async def charge() -> None:
        current_unit().side_effect_done("the card is charged")

    check_once(tried, await tried.request(tried.write, charge))
    assert observer.names() == []


@ROOMY
async def test_after_side_effect_done_in_a_block_inside(
    flavour: Flavour, tried: Tried
) -> None:
    def charge(session: Session) -> None:
        current_unit().side_effect_done()

    async def block() -> None:
        await flavour.work(charge)

    check_once(tried, await tried.request(block))


@FEW
async def test_not_even_if_a_hook_of_the_rollback_says_so(
    tried: Tried, observer: Observer
) -> None:
    async def hook() -> None:
        unit = current_unit()
        unit.on_rollback(lambda: unit.side_effect_done("the customer is notified"))

    check_once(tried, await tried.request(tried.write, hook))


# It is committed, or may be


@everywhere
@BOTH_WAYS
async def test_if_the_outcome_of_commit_is_unknown(
    unsure: Flavour, observer: Observer, fault: CommitFault
) -> None:
    tried = Tried(unsure, [0])

    with commit_faults(unsure.db, fault):
        reply = await tried.request(tried.write)

    assert (reply.status, reply.json["title"]) == (500, "Outcome unknown")
    assert tried.attempts == [0, 1]
    assert len(observer.names()) == (fault is CommitFault.COMMITTED)


@only(*POSTGRESQL)
@BOTH_WAYS
async def test_but_it_is_once_the_database_has_told_that_nothing_is_stored(
    flavour: Flavour, observer: Observer, fault: CommitFault
) -> None:
    tried = Tried(flavour, [0])

    with commit_faults(flavour.db, fault):
        reply = await tried.request(tried.write)

    assert reply.status == 200
    assert tried.attempts[1:] == ([1, 2] if fault is CommitFault.ROLLED_BACK else [1])
    assert len(observer.names()) == 1


@FEW
async def test_after_a_commit_by_hand(tried: Tried, observer: Observer) -> None:
    check_once(tried, await tried.request(tried.write_and_commit))
    assert observer.names() == ["attempt 1"]


@FEW
async def test_but_it_is_if_the_commit_by_hand_was_refused(
    flavour: Flavour, tried: Tried, observer: Observer
) -> None:
    tried.attempts.append(0)

    with commit_faults(flavour.db, Conflict()):
        reply = await tried.request(tried.write_and_commit)

    assert (reply.status, tried.attempts) == (200, [0, 1, 2])
    assert observer.names() == ["attempt 3"]


@everywhere
@BOTH_WAYS
async def test_if_the_outcome_of_a_commit_by_hand_is_unknown(
    unsure: Flavour, observer: Observer, fault: CommitFault
) -> None:
    tried = Tried(unsure, [0])

    with commit_faults(unsure.db, fault):
        reply = await tried.request(tried.write_and_commit)

    assert (reply.status, tried.attempts) == (500, [0, 1])
    assert len(observer.names()) == (fault is CommitFault.COMMITTED)


@FEW
@BOTH_WAYS
async def test_nor_if_somebody_has_swallowed_that(
    unsure: Flavour, fault: CommitFault
) -> None:
    tried = Tried(unsure)

    def body(session: Session) -> None:
        tried.add(session)
        try:
            session.commit()
        except Exception:
            session.rollback()
        names(session)

    async def step() -> None:
        await unsure.do(await unsure.db.session(), body)

    with commit_faults(unsure.db, fault):
        check_once(tried, await tried.request(step))


@FEW
@BOTH_WAYS
async def test_nor_in_a_begin_block_of_sqlalchemys(
    unsure: Flavour, fault: CommitFault
) -> None:
    def body(session: Session) -> None:
        with session.begin():
            tried.add(session)

    async def step() -> None:
        await unsure.do(await unsure.db.session(), body)

    tried = Tried(unsure, [0])
    with commit_faults(unsure.db, fault):
        reply = await tried.request(step)

    assert (reply.status, tried.attempts) == (500, [0, 1])


@FEW
async def test_on_an_engine_that_commits_each_statement(
    flavour: Flavour, observer: Observer
) -> None:
    loose = flavour.another(isolation_level="AUTOCOMMIT")
    tried = Tried(loose)

    check_once(tried, await tried.request(tried.write))
    await loose.dispose()
    assert observer.names() == ["attempt 1"]
