"""Tokens and replicas in blocks, WebSockets and tasks, under unkind conditions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from sqlalchemy import text
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.asgi import call
from support.driver_errors import postgresql, wrapped
from support.flavours import Flavour
from support.models import add_item, names
from support.recording import recording
from support.replicated import (
    SECRET,
    is_replica,
    port,
    port_of,
    replicated_flavour,
    token_of_write,
    with_driver,
)
from support.websocket import Socket
from unitwork import (
    AsyncDatabase,
    DBSessionMiddleware,
    ReadOnlyError,
    current_unit,
    transactional,
)
from unitwork.events import UnitEnded
from unitwork.replicas import SignedCookie
from unitwork.testing import no_waits

pytestmark = pytest.mark.anyio


with_both = pytest.mark.parametrize("replicated", ["psycopg", "asyncpg"], indirect=True)
with_one = pytest.mark.parametrize("replicated", ["asyncpg"], indirect=True)


def pause_all(replication: Replication) -> None:
    for i in range(len(replication.replica_urls)):
        replication.pause(i)


def index_of(replication: Replication, used: int) -> int:
    return [port_of(url) for url in replication.replica_urls].index(used)


def after(token: str | None) -> Any:
    def read(session: Session) -> list[str]:
        current_unit().read_after(token)
        return names(session)

    return read


@with_one
async def test_a_block_in_a_task_has_the_token_that_it_is_given(
    replicated: Flavour, replication: Replication
) -> None:
    pause_all(replication)
    token = await token_of_write(replicated, "one")

    reads = [replicated.work(after(token), read_only=True) for _ in range(5)]
    assert await asyncio.gather(*reads) == [["one"]] * 5


@with_both
async def test_a_run_that_is_repeated_sees_what_it_has_to_each_time(
    replicated: Flavour, replication: Replication
) -> None:
    pause_all(replication)
    token, seen = await token_of_write(replicated, "one"), []

    def read(session: Session) -> None:
        seen.append(after(token)(session))
        if current_unit().attempt == 1:
            raise wrapped(postgresql("40001"))

    with no_waits():
        await run(replicated, read, read_only=True, attempts=2)

    assert seen == [["one"], ["one"]]


async def run(flavour: Flavour, body: Any, **options: Any) -> Any:
    if flavour.is_async:
        return await flavour.db.run(lambda session: session.run_sync(body), **options)
    return await asyncio.to_thread(flavour.db.run, body, **options)


@with_both
async def test_a_repeated_run_may_read_from_another_replica(
    replicated: Flavour, replication: Replication
) -> None:
    ports = []

    def read(session: Session) -> None:
        ports.append(port(session))
        if current_unit().attempt == 1:
            replication.kill(index_of(replication, ports[0]))
            session.execute(text("SELECT 1"))

    with no_waits():
        await run(replicated, read, read_only=True, attempts=2)

    assert len({*ports}) == len(ports) == 2


@with_both
async def test_a_replica_that_is_promoted_in_a_unit_takes_no_write(
    replicated: Flavour, replication: Replication
) -> None:
    used = []

    def write_after_all(session: Session) -> None:
        used.append(port(session))
        at = index_of(replication, used[0])
        replication.promote(at)
        assert not is_replica(session)
        add_item(session, "lost")

    with pytest.raises(ReadOnlyError):
        await replicated.work(write_after_all, read_only=True)


@asynccontextmanager
async def conversation(
    replication: Replication, answer: Callable[[AsyncDatabase, WebSocket], Any]
) -> AsyncIterator[Socket]:
    """A WebSocket whose messages are given to *answer*; the replicas are behind."""
    flavour = replicated_flavour("asyncpg", replication)
    app = FastAPI()
    carrier = SignedCookie(SECRET)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, read_your_writes=carrier)

    @app.websocket("/")
    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await answer(flavour.db, socket)

    pause_all(replication)
    async with Socket(app, "/") as socket:
        yield socket
    await flavour.dispose()


async def send_names(db: AsyncDatabase, socket: WebSocket) -> None:
    async with db.transaction(read_only=True) as session:
        found = await session.run_sync(names)
    await socket.send_text(",".join(found))


async def test_each_message_of_a_websocket_reads_what_the_last_one_wrote(
    replication: Replication,
) -> None:
    async def write_and_read(db: AsyncDatabase, socket: WebSocket) -> None:
        add = partial(add_item, name=await socket.receive_text())
        async with db.transaction() as session:
            await session.run_sync(add)
        await send_names(db, socket)

    async with conversation(replication, write_and_read) as socket:
        assert await socket.ask("one") == "one"
        assert await socket.ask("two") == "one,two"


async def test_a_session_of_a_websocket_reads_what_its_last_message_wrote(
    replication: Replication,
) -> None:
    async def write_and_read(db: AsyncDatabase, socket: WebSocket) -> None:
        add = partial(add_item, name=await socket.receive_text())
        await db.current.run_sync(add)
        await socket.send_text("written")
        await send_names(db, socket)

    async with conversation(replication, write_and_read) as socket:
        assert await socket.ask("one") == "written"
        assert (await socket.receive())["text"] == "one"


@with_one
async def test_a_token_of_another_database_does_not_count(
    replicated: Flavour, replication: Replication
) -> None:
    token = await token_of_write(replicated, "one")
    name, rest = token.split(".", 1)
    other = ".".join([b"other".hex(), rest])

    with recording(replicated.db, only=[UnitEnded]) as recorder:
        await replicated.work(after(other), read_only=True)

    assert name != other.split(".")[0]
    [pool] = recorder.one(UnitEnded).use.pools
    assert pool.startswith("default, replica ")


@with_one
async def test_a_token_that_has_expired_does_not_count(
    replicated: Flavour, replication: Replication
) -> None:
    name, position, _ = (await token_of_write(replicated, "one")).split(".")
    pause_all(replication)
    await token_of_write(replicated, "two")

    with recording(replicated.db, only=[UnitEnded]) as recorder:
        await replicated.work(after(f"{name}.{position}.1"), read_only=True)

    [pool] = recorder.one(UnitEnded).use.pools
    assert pool.startswith("default, replica ")


@with_one
@pytest.mark.parametrize("at", ["7fffffffffffffff:1:1", "1:ffffffff:ffffffffffffffff"])
async def test_a_token_of_another_server_is_read_from_the_primary(
    replicated: Flavour, at: str
) -> None:
    name, _, until = (await token_of_write(replicated, "one")).split(".")

    with recording(replicated.db, only=[UnitEnded]) as recorder:
        found = await replicated.work(after(f"{name}.{at}.{until}"), read_only=True)

    assert found == ["one"]
    assert recorder.one(UnitEnded).use.pools == ("default",)


async def test_what_two_phases_have_written_is_seen_by_other_applications(
    replication: Replication,
) -> None:
    flavour = replicated_flavour("asyncpg", replication)
    second = AsyncDatabase(
        with_driver(replication.primary_url, "asyncpg"), name="other"
    )
    carrier, app, reads = SignedCookie(SECRET), FastAPI(), FastAPI()
    options: dict[str, Any] = {"db": [flavour.db, second], "read_your_writes": carrier}
    app.add_middleware(DBSessionMiddleware, twophase=True, **options)
    reads.add_middleware(DBSessionMiddleware, **options)
    reads.get("/")(transactional(read_only=True)(flavour.endpoint(names)))

    @app.post("/")
    async def write() -> None:
        for db in (flavour.db, second):
            await db.current.run_sync(partial(add_item, name=db.name))

    pause_all(replication)
    written = await call(app, "POST", "/")
    cookie = dict(written.starts[0]["headers"])[b"set-cookie"].split(b";")[0]
    found = await call(reads, "GET", "/", headers=[(b"cookie", cookie)])
    await second.dispose()
    await flavour.dispose()
    assert (written.status, found.json) == (200, ["default", "other"])
