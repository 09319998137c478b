"""A client that has written sees that, from whichever server it reads next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import POSTGRESQL, Flavour
from support.models import add_item, names
from support.proxy import Proxy, RoundTrips
from support.replicated import (
    SECRET,
    is_replica,
    replicated_flavour,
    token_of_write,
    with_driver,
)
from unitwork import DBSessionMiddleware, UsageError, current_unit, transactional
from unitwork.replicas import SignedCookie, SignedHeader

pytestmark = pytest.mark.anyio


def items(session: Session) -> dict[str, Any]:
    return {"names": names(session), "replica": is_replica(session)}


def app_of(flavour: Flavour, carrier: Any, *others: Any, **options: Any) -> FastAPI:
    app = FastAPI()
    dbs = [flavour.db, *others]
    app.add_middleware(DBSessionMiddleware, db=dbs, read_your_writes=carrier, **options)
    read = transactional(read_only=True)(flavour.endpoint(items))
    app.get("/items")(read)
    app.get("/writes")(flavour.endpoint(names))
    app.post("/items")(flavour.endpoint(lambda session: add_item(session).id))

    def refuse(session: Session) -> None:
        add_item(session, "refused")
        raise HTTPException(409)

    app.post("/refused")(flavour.endpoint(refuse))
    return app


@pytest.fixture
async def client(replicated: Flavour) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app_of(replicated, SignedCookie(SECRET)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def pause_all(replication: Replication) -> None:
    for i in range(len(replication.replica_urls)):
        replication.pause(i)


async def test_reads_its_own_write_though_no_replica_has_it(
    client: httpx.AsyncClient, replication: Replication
) -> None:
    pause_all(replication)
    await client.post("/items")
    reply = await client.get("/items")

    assert reply.json() == {"names": ["one"], "replica": False}


async def test_reads_its_own_write_from_a_replica_that_has_it(
    client: httpx.AsyncClient, replication: Replication
) -> None:
    await client.post("/items")
    replication.wait_caught_up()
    reply = await client.get("/items")

    assert reply.json() == {"names": ["one"], "replica": True}


async def test_a_read_waits_for_a_replica_that_is_a_little_behind(
    client: httpx.AsyncClient, replication: Replication
) -> None:
    replication.set_delay(0, 50)
    replication.set_delay(1, 50)
    await client.post("/items")
    reply = await client.get("/items")

    assert reply.json() == {"names": ["one"], "replica": True}


async def test_one_replica_that_has_it_is_enough(
    client: httpx.AsyncClient, replication: Replication
) -> None:
    replication.pause(0)
    await client.post("/items")
    seen = [(await client.get("/items")).json()["names"] for _ in range(6)]

    assert seen == [["one"]] * 6


async def test_another_client_reads_from_a_replica_that_lacks_it(
    client: httpx.AsyncClient, replication: Replication
) -> None:
    pause_all(replication)
    await client.post("/items")
    client.cookies.clear()
    reply = await client.get("/items")

    assert reply.json() == {"names": [], "replica": True}


async def test_a_response_to_a_read_sets_no_cookie(client: httpx.AsyncClient) -> None:
    reply = await client.get("/items")

    assert "set-cookie" not in reply.headers


async def test_a_unit_that_may_write_and_only_reads_sets_no_cookie(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.get("/writes")

    assert "set-cookie" not in reply.headers


async def test_what_was_rolled_back_sets_no_cookie(client: httpx.AsyncClient) -> None:
    reply = await client.post("/refused")

    assert (reply.status_code, "set-cookie" in reply.headers) == (409, False)


async def test_the_cookie_is_for_the_server_alone_and_expires(
    client: httpx.AsyncClient,
) -> None:
    reply = await client.post("/items")
    cookie = reply.headers["set-cookie"]

    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=6" in cookie


@pytest.mark.parametrize("change", [str.upper, lambda x: x[::-1], lambda x: "x" + x])
async def test_a_forged_cookie_is_ignored(
    client: httpx.AsyncClient, replication: Replication, change: Any
) -> None:
    reply = await client.post("/items")
    value = reply.cookies["unitwork-token"]
    client.cookies.clear()
    pause_all(replication)
    client.cookies.set("unitwork-token", change(value))

    assert (await client.get("/items")).json()["replica"]


async def test_a_cookie_that_another_secret_has_signed_is_ignored(
    replicated: Flavour,
) -> None:
    token = await token_of_write(replicated, "one")
    headers = dict(SignedCookie("another secret of 16").write({}, token))
    value = headers[b"set-cookie"].split(b";")[0]

    assert SignedCookie(SECRET).read({"headers": [(b"cookie", value)]}) is None


async def test_a_former_secret_is_still_read(replicated: Flavour) -> None:
    token = await token_of_write(replicated, "one")
    headers = dict(SignedCookie("a former secret of tests").write({}, token))
    value = headers[b"set-cookie"].split(b";")[0]
    both = SignedCookie([SECRET, "a former secret of tests"])

    assert both.read({"headers": [(b"cookie", b"a=b; " + value)]}) == token


async def test_a_header_carries_the_token_as_well(
    replicated: Flavour, replication: Replication
) -> None:
    transport = httpx.ASGITransport(app_of(replicated, SignedHeader(SECRET)))
    pause_all(replication)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        token = (await client.post("/items")).headers["X-Database-Token"]
        reply = await client.get("/items", headers={"X-Database-Token": token})

    assert reply.json() == {"names": ["one"], "replica": False}


async def test_a_block_is_given_the_token_of_another(
    replicated: Flavour, replication: Replication
) -> None:
    pause_all(replication)
    token = await token_of_write(replicated, "one")

    def read(session: Session) -> tuple[list[str], bool]:
        current_unit().read_after(token)
        return names(session), is_replica(session)

    assert await replicated.work(read, read_only=True) == (["one"], False)


async def test_a_block_inside_sees_what_was_committed_around_it(
    replicated: Flavour, replication: Replication
) -> None:
    pause_all(replication)

    def write(session: Session) -> None:
        add_item(session)
        session.commit()

    async with replicated.block() as outer:
        await replicated.do(outer, write)
        assert await replicated.work(names, read_only=True) == ["one"]


async def test_a_token_that_comes_too_late_is_refused(replicated: Flavour) -> None:
    token = await token_of_write(replicated, "one")

    def read(session: Session) -> None:
        names(session)
        current_unit().read_after(token)

    with pytest.raises(UsageError, match="too late"):
        await replicated.work(read, read_only=True)


async def test_what_is_no_token_is_refused(replicated: Flavour) -> None:
    def read(session: Session) -> None:
        current_unit().read_after("no token")

    with pytest.raises(UsageError, match="is no token"):
        await replicated.work(read, read_only=True)


async def test_a_snapshot_reads_its_own_write_from_the_primary(
    replicated: Flavour, replication: Replication
) -> None:
    token = await token_of_write(replicated, "one")
    replication.wait_caught_up()

    def read(session: Session) -> tuple[list[str], bool]:
        current_unit().read_after(token)
        return names(session), is_replica(session)

    snapshot = {"read_only": True, "isolation_level": "REPEATABLE READ"}
    assert await replicated.work(read, **snapshot) == (["one"], False)


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_neither_the_position_nor_its_check_takes_a_round_trip(
    name: str, replication: Replication
) -> None:
    async with (
        Proxy(replication.primary_url) as primary,
        Proxy(replication.replica_urls[0]) as replica,
    ):
        urls = [with_driver(replica.url, name)]
        flavour = replicated_flavour(name, replication, replicas=urls)
        flavour.db = type(flavour.db)(with_driver(primary.url, name), replicas=urls)
        await token_of_write(flavour, "first")
        writes = next(iter(primary.lines.values())).trap = RoundTrips()
        token = await token_of_write(flavour, "one")
        replication.wait_caught_up()
        await flavour.work(names, read_only=True)
        reads = next(iter(replica.lines.values())).trap = RoundTrips()

        def read(session: Session) -> int:
            current_unit().read_after(token)
            return len(names(session))

        assert await flavour.work(read, read_only=True) == 2
        assert (writes.count, reads.count) == (3, 3)
        await flavour.dispose()


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_without_verification_the_position_is_known_as_well(
    name: str, replication: Replication
) -> None:
    flavour = replicated_flavour(name, replication, verify_commit=False)
    token = await token_of_write(flavour, "one")
    replication.wait_caught_up()

    def read(session: Session) -> tuple[list[str], bool]:
        current_unit().read_after(token)
        return names(session), is_replica(session)

    assert await flavour.work(read, read_only=True) == (["one"], True)
    await flavour.dispose()


async def test_asynchronous_commits_have_a_position_as_well(
    replicated: Flavour, replication: Replication
) -> None:
    pause_all(replication)

    def write(session: Session) -> None:
        session.execute(text("SET LOCAL synchronous_commit = off"))
        add_item(session)

    units = []

    def write_and_keep(session: Session) -> None:
        write(session)
        units.append(current_unit())

    await replicated.work(write_and_keep)

    def read(session: Session) -> list[str]:
        current_unit().read_after(units[0].token)
        return names(session)

    assert await replicated.work(read, read_only=True) == ["one"]


async def test_with_two_phases_all_units_use_the_primary(replicated: Flavour) -> None:
    other = type(replicated.db)(replicated.url, name="other")
    app = app_of(replicated, SignedCookie(SECRET), other, twophase=True)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.post("/items")
        reply = await client.get("/items")

    assert reply.json() == {"names": ["one"], "replica": False}


async def test_a_middleware_without_a_carrier_is_refused(replicated: Flavour) -> None:
    middleware = DBSessionMiddleware(FastAPI(), db=replicated.db)

    assert "has replicas: give the middleware" in str(middleware.misconfigured)


async def test_clients_may_read_the_past_where_that_is_wanted(
    replicated: Flavour, replication: Replication
) -> None:
    transport = httpx.ASGITransport(app_of(replicated, False))
    pause_all(replication)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post("/items")
        assert "set-cookie" not in reply.headers
        assert (await client.get("/items")).json() == {"names": [], "replica": True}
