"""`sandbox(real=True)`: the same interface, and a database of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import Context
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import IntegrityError

from support.asgi import call
from support.endpoints import serve_fastapi
from support.flavours import SERVERS, Flavour, Observer, everywhere, only
from support.models import Item, add_item, add_orphan, create_tables, names
from support.sandboxes import WAYS, entered
from unitwork import Database, UsageError
from unitwork._real_databases.pools import close_pools
from unitwork.testing import (
    Sandbox,
    SandboxError,
    assert_committed,
    assert_queries,
    sandbox,
)

pytestmark = pytest.mark.anyio

SCHEMA = (create_tables, "tables of the tests")


@pytest.fixture(autouse=True)
def _pools_are_closed() -> Iterator[None]:
    yield
    close_pools()


@pytest.fixture(params=WAYS)
async def box(
    request: pytest.FixtureRequest, flavour: Flavour
) -> AsyncIterator[Sandbox]:
    async with entered(request.param, flavour.db, real=True, schema=SCHEMA) as box:
        yield box


async def own(flavour: Flavour, box: Sandbox, body: Any) -> Any:
    """Run *body* with the test's own session, and commit."""
    session = box.session
    result = await flavour.do(session, body)
    await flavour.do(session, lambda session: session.commit())
    return result


@everywhere
async def test_requests_see_what_the_test_has_stored(
    flavour: Flavour, box: Sandbox, observer: Observer
) -> None:
    await own(flavour, box, add_item)
    app = serve_fastapi(flavour, lambda s: add_item(s, "two") and names(s))

    reply = await call(app, "POST", "/")

    assert (reply.status, observer.names()) == (200, [])
    assert await own(flavour, box, names) == ["one", "two"]


@only(*SERVERS)
async def test_commits_are_real(flavour: Flavour, box: Sandbox) -> None:
    async with flavour.block() as outer:
        await flavour.do(outer, names)
        await flavour.work(add_item, nested="own")

    assert await flavour.work(names) == ["one"]


@only("psycopg", "psycopg-async", "asyncpg")
async def test_deferred_constraints_fail_at_commit(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(IntegrityError):
        await flavour.work(add_orphan)


@everywhere
async def test_outside_of_it_the_database_is_refused(
    flavour: Flavour, box: Sandbox
) -> None:
    loop = asyncio.get_running_loop()
    outside = loop.create_task(flavour.work(names), context=Context())

    with pytest.raises(SandboxError, match="belongs to none"):
        await outside


@everywhere
async def test_a_request_with_its_header_belongs_to_it(
    flavour: Flavour, box: Sandbox
) -> None:
    loop = asyncio.get_running_loop()
    app = serve_fastapi(flavour, lambda s: add_item(s) and names(s))
    headers = [(k.encode(), v.encode()) for k, v in box.headers.items()]
    request = call(app, "POST", "/", headers=headers)

    reply = await loop.create_task(request, context=Context())

    assert reply.status == 200
    assert await flavour.work(names) == ["one"]


@only("sqlite3", "psycopg", "pymysql")
def test_a_plain_test(flavour: Flavour) -> None:
    with sandbox(flavour.db, real=True, schema=SCHEMA) as box:
        add_item(box.session)
        box.session.commit()
        with TestClient(serve_fastapi(flavour, names)) as client:
            assert client.get("/").json() == ["one"]


@only("aiosqlite", "psycopg-async", "asyncpg", "asyncmy")
def test_a_plain_test_of_an_async_database(flavour: Flavour) -> None:
    with sandbox(flavour.db, real=True, schema=SCHEMA) as box:
        add_item(box.sync_session)
        box.sync_session.commit()
        with TestClient(serve_fastapi(flavour, names)) as client:
            assert client.get("/").json() == ["one"]
        assert box.sync_session.get_one(Item, 1).name == "one"


@everywhere
async def test_many_at_once_over_one_application(flavour: Flavour) -> None:
    app = serve_fastapi(flavour, lambda s: add_item(s) and names(s))

    async def test() -> None:
        async with sandbox(flavour.db, real=True, schema=SCHEMA):
            with assert_committed(), assert_queries(2):
                assert (await call(app, "POST", "/")).status == 200

    await asyncio.gather(*(test() for _ in range(3)))


@only("sqlite3", "asyncpg")
async def test_what_is_in_it_has_to_be_known(flavour: Flavour) -> None:
    with pytest.raises(UsageError, match=r"schema=Base\.metadata"):
        async with sandbox(flavour.db, real=True):
            pass


@only("asyncpg")
async def test_several_databases(flavour: Flavour) -> None:
    other = flavour.another(name="other")
    both = {flavour.db: SCHEMA, "other": SCHEMA}

    async with sandbox(flavour.db, other.db, real=True, schema=both) as box:
        await flavour.work(add_item)
        assert await other.work(names) == []
        other_session = box.session_of(other.db)
        assert await other.do(other_session, names) == []

    await other.dispose()


@only("sqlite3", "psycopg", "pymysql")
async def test_it_can_be_kept(flavour: Flavour) -> None:
    with sandbox(flavour.db, real=True, schema=SCHEMA) as box:
        await flavour.work(add_item)
        [url] = box.keep()
    close_pools()

    kept = type(flavour.db)(url)
    assert await Flavour(flavour.name, url, kept).work(names) == ["one"]
    kept.dispose()


def test_only_a_real_one_can_be_kept() -> None:
    with sandbox(Database("sqlite://")) as box:
        assert box.keep() == []
