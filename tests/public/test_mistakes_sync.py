"""Mistakes with a sync Database: what to write is sync, too."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from sqlalchemy.exc import InvalidRequestError

from support.mistakes import World
from unitwork import Database, DBSessionMiddleware, current_unit

pytestmark = pytest.mark.anyio


@pytest.fixture
def synchronous(world: World) -> World:
    """The world with one database, a sync one."""
    world.app = FastAPI()
    world.app.add_middleware(DBSessionMiddleware, db=world.sync_db)
    return world


async def test_no_middleware(synchronous: World) -> None:
    synchronous.app.user_middleware.clear()

    def endpoint() -> None:
        _ = synchronous.sync_db.current

    message = await synchronous.said_by(endpoint)

    assert "`with db.transaction() as session:`" in message
    assert "async with" not in message


async def test_two_objects_for_one_database(synchronous: World) -> None:
    again = Database(synchronous.sync_db.engine)

    def endpoint() -> None:
        _ = again.current

    message = await synchronous.said_by(endpoint)

    assert "open a unit of this one: `with db.transaction() as session:`" in message


async def test_no_unit_of_any_database(synchronous: World) -> None:
    synchronous.app.user_middleware.clear()
    message = await synchronous.said_by(current_unit)

    assert "`async with db.transaction() as session:`" in message
    assert "`with` for a Database" in message


async def test_a_session_in_two_threads(synchronous: World) -> None:
    def endpoint() -> None:
        _ = synchronous.sync_db.current
        raise InvalidRequestError("This session is provisioning a new connection")

    message = await synchronous.said_by(endpoint)

    assert "a session serves one thread at a time" in message
    assert "give each its own: `with db.transaction() as session:`" in message
