"""A row with a version that was changed since it was read: `StaleDataError`."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session, registry
from sqlalchemy.orm.exc import StaleDataError

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import FEW, Flavour, Observer
from support.models import Item, add_item
from unitwork import RetryPolicy, TransactionOptions
from unitwork.fastapi import exception_handlers
from unitwork.testing import no_waits

pytestmark = [pytest.mark.anyio, FEW]


class Versioned:
    """An item whose name is its version."""


registry().map_imperatively(
    Versioned,
    Item.__table__,
    version_id_col=Item.__table__.c.name,
    version_id_generator=lambda version: f"{version}+",
)


class Rival:
    """Changes the row after the first attempt has read it."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.attempts = 0

    def write(self, session: Session) -> None:
        row = session.get(Versioned, 1)
        self.attempts += 1
        if self.attempts == 1:
            session.execute(Item.__table__.update().values(name="changed"))
        session.delete(row)


async def test_409_by_the_ready_handlers(flavour: Flavour) -> None:
    rival = Rival(flavour)
    await flavour.work(lambda session: add_item(session).id)
    app = serve_fastapi(flavour, rival.write, handlers=exception_handlers)

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.json["title"], rival.attempts) == (409, "Conflict", 1)


@pytest.mark.parametrize(
    ("stale_data", "status", "left"), [(True, 200, 0), (False, 500, 1)]
)
async def test_it_is_retried_if_that_is_asked_for(
    flavour: Flavour, observer: Observer, stale_data: bool, status: int, left: int
) -> None:
    rival = Rival(flavour)
    await flavour.work(lambda session: add_item(session).id)
    options, retry = TransactionOptions(attempts=3), RetryPolicy(stale_data=stale_data)
    app = serve_fastapi(flavour, rival.write, options=options, retry=retry)

    with no_waits():
        reply = await call(app, "POST", "/")

    assert (reply.status, len(observer.names())) == (status, left)
    assert isinstance(reply.error, StaleDataError) == (not stale_data)
