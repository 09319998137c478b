"""More requests at once than connections: they wait for each other outside."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import FastAPI

from support.asgi import call
from support.flavours import MARIADB, Flavour, Observer, everywhere
from support.models import add_item, names
from support.releasing import outside
from unitwork import DBSessionMiddleware, transactional

pytestmark = pytest.mark.anyio

REQUESTS = 40


@everywhere
async def test_a_small_pool_serves_a_crowd_that_waits_outside(
    flavour: Flavour, observer: Observer
) -> None:
    narrow = flavour.another(pool_size=2, max_overflow=0, pool_timeout=20)
    level = "READ COMMITTED" if flavour.name in MARIADB else None
    all_inside = asyncio.Barrier(REQUESTS)

    @transactional(isolation_level=level)
    async def endpoint(number: int) -> None:
        session = await narrow.db.session()
        await narrow.do(session, names)
        async with outside():
            await all_inside.wait()  # each needs all others to have come this far
        session = await narrow.db.session()
        await narrow.do(session, lambda s: add_item(s, f"{number}") and None)

    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=narrow.db)
    app.post("/{number}")(endpoint)
    replies = await asyncio.gather(
        *(call(app, "POST", f"/{number}") for number in range(REQUESTS))
    )
    await narrow.dispose()

    assert {reply.status for reply in replies} == {200}
    assert len(observer.names()) == REQUESTS
