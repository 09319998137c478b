"""Server-sent events of FastAPI: a generator that runs beside the response's start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from support.asgi import call
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import add_item
from support.pool import check_pool_is_whole
from unitwork import DBSessionMiddleware

sse = pytest.importorskip("fastapi.sse", reason="of later versions of FastAPI")
pytestmark = pytest.mark.anyio
VERSIONS = pytest.mark.parametrize("spec_version", ["2.3", "2.4"])


def spec(version: str) -> dict[str, str]:
    return {"version": "3.0", "spec_version": version}


def served(flavour: Flavour, endpoint: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)
    app.post("/", response_class=sse.EventSourceResponse)(endpoint)
    return app


@only(*ASYNC)
@VERSIONS
async def test_each_event_may_write_in_a_unit_of_its_own(
    flavour: Flavour, observer: Observer, spec_version: str
) -> None:
    async def endpoint() -> AsyncIterator[int]:
        for number in range(3):
            await flavour.work(
                lambda session, name=str(number): add_item(session, name)
            )
            yield number

    reply = await call(
        served(flavour, endpoint), "POST", "/", spec_version=spec_version
    )

    assert (reply.body.count(b"data:"), reply.complete, reply.error) == (3, True, None)
    assert observer.names() == ["0", "1", "2"]
    await check_pool_is_whole(flavour)


@only(*ASYNC)
@VERSIONS
async def test_a_generator_that_raises_stores_nothing(
    flavour: Flavour, observer: Observer, spec_version: str
) -> None:
    """FastAPI cancels the task that sends, and lets it send the last chunk as well."""
    sent = asyncio.Event()

    injected = Depends(flavour.db.session)

    async def endpoint(session: AsyncSession = injected) -> AsyncIterator[int]:
        yield 1
        await sent.wait()
        await session.run_sync(add_item)
        raise LookupError

    reply = await call(
        served(flavour, endpoint),
        "POST",
        "/",
        spec_version=spec_version,
        on_message=lambda message: sent.set() if message.get("body") else None,
    )

    assert (reply.complete, observer.names()) == (False, [])
    assert isinstance(reply.error, ExceptionGroup)
    await check_pool_is_whole(flavour)
