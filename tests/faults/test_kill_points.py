"""P5, P7, one fault at a time: what the client hears, and what is in the table."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event

from faults.stage import SETTINGS, Stage
from faults.traps import Act, Fault
from support.flavours import POSTGRESQL, SERVERS, Flavour, only
from support.pool import eventually
from support.proxy import Line
from unitwork import CommitUnknownError, DatabaseSettings, classify

pytestmark = pytest.mark.anyio

LOSSES: list[Act] = ["cut", "reset"]
UNVERIFIED = DatabaseSettings(end_timeout=0.5, commit_timeout=0.5, verify_commit=False)


@pytest.fixture
def settings() -> DatabaseSettings:
    return SETTINGS


@pytest.fixture
async def stage(flavour: Flavour, settings: DatabaseSettings) -> AsyncIterator[Stage]:
    async with Stage(flavour.name, flavour.url, settings=settings) as stage:
        assert (await stage.request("/read/first")).status == 200  # it is connected
        yield stage
        stage.meet()
        assert (await stage.request("/insert/last")).status == 200
        assert stage.outsider.keys()["last"] == 1
        assert await stage.settle() == []


async def check_refused(stage: Stage, path: str = "/insert/key") -> None:
    """The client gets an error, and nothing is there."""
    reply = await stage.request(path)

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, Exception)
    assert classify(reply.error).disconnected
    assert stage.outsider.keys()["key"] == 0


async def check_stored(stage: Stage, path: str = "/insert/key") -> None:
    """The client gets its answer, and what it wrote is there, once."""
    reply = await stage.request(path)

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert stage.outsider.keys()["key"] == 1


@only(*SERVERS)
@pytest.mark.parametrize("act", LOSSES)
async def test_killed_before_begin(stage: Stage, act: Act) -> None:
    getattr(stage.proxy, act)()
    await eventually(lambda: not stage.proxy.lines)

    await check_stored(stage)


@only(*POSTGRESQL)
@pytest.mark.parametrize("act", LOSSES)
@pytest.mark.parametrize("side", ["request", "reply"])
async def test_killed_at_begin(stage: Stage, act: Act, side: Any) -> None:
    struck: list[None] = []
    stage.meet(Fault("BEGIN", side, act), struck=lambda: struck.append(None))

    await check_stored(stage)
    assert len(struck) == 1


@only(*POSTGRESQL)
async def test_the_server_ends_the_connection_at_begin(stage: Stage) -> None:
    struck: list[None] = []
    stage.meet(Fault("BEGIN", "request", "kill"), struck=lambda: struck.append(None))

    await check_stored(stage)
    assert len(struck) == 1


@only(*POSTGRESQL)
@pytest.mark.parametrize("act", LOSSES)
@pytest.mark.parametrize("side", ["request", "reply"])
async def test_killed_at_begin_and_again(stage: Stage, act: Act, side: Any) -> None:
    """The connection that replaces the first one is lost, too."""
    stage.meet(Fault("BEGIN", side, act))
    stage.meet_newcomer(Fault("BEGIN", side, act))

    await check_refused(stage)


@only(*SERVERS)
@pytest.mark.parametrize("act", LOSSES)
async def test_killed_before_begin_and_out_of_reach(stage: Stage, act: Act) -> None:
    """No connection can replace the first one."""
    getattr(stage.proxy, act)()
    await eventually(lambda: not stage.proxy.lines)
    stage.proxy.refusing = 10**6

    await check_refused(stage)
    stage.proxy.refusing = 0


@only(*SERVERS)
@pytest.mark.parametrize("act", LOSSES)
@pytest.mark.parametrize("number", [0, 9])
async def test_killed_in_the_middle_of_a_statement(
    stage: Stage, act: Act, number: int
) -> None:
    """*number* is how many of its bytes get through."""
    stage.meet(Fault("statement", "request", act, number=0, keep=number))

    await check_refused(stage)


@only(*SERVERS)
@pytest.mark.parametrize("act", LOSSES)
async def test_killed_while_a_statement_is_answered(stage: Stage, act: Act) -> None:
    stage.meet(Fault("statement", "reply", act))

    await check_refused(stage)


@only(*SERVERS)
async def test_the_server_ends_the_connection(stage: Stage) -> None:
    stage.meet(Fault("statement", "request", "kill"))

    await check_refused(stage)


@only(*POSTGRESQL)
async def test_killed_before_commit_is_sent(stage: Stage) -> None:
    def kill(connection: Any) -> None:
        stage.outsider.kill(connection.connection.info["backend"])

    event.listen(stage.engine, "commit", kill, once=True)

    await check_refused(stage)


# COMMIT


@only(*POSTGRESQL)
async def test_the_server_ends_the_connection_before_commit(stage: Stage) -> None:
    stage.meet(Fault("COMMIT", "request", "kill"))

    await check_refused(stage)


@only(*POSTGRESQL)
@pytest.mark.parametrize("act", LOSSES)
@pytest.mark.parametrize("number", [0, 9])
async def test_a_commit_that_is_lost_on_its_way(
    stage: Stage, act: Act, number: int
) -> None:
    stage.meet(Fault("COMMIT", "request", act, keep=number))

    await check_refused(stage)


@only(*POSTGRESQL)
@pytest.mark.parametrize("act", LOSSES)
async def test_a_commit_whose_reply_is_lost(stage: Stage, act: Act) -> None:
    stage.meet(Fault("COMMIT", "reply", act))

    await check_stored(stage)


@only(*POSTGRESQL)
async def test_a_commit_during_which_the_server_ends_the_connection(
    stage: Stage,
) -> None:
    stage.meet(Fault("COMMIT", "request", "kill", seconds=0.0))

    await check_refused(stage, "/insert_slowly/key")


@only(*POSTGRESQL)
async def test_a_commit_that_arrives_late_is_forestalled(stage: Stage) -> None:
    """The network heals after the outcome was asked for, and delivers it all."""
    stage.meet(Fault("COMMIT", "request", "hold"))

    await check_refused(stage)
    for line in list(stage.proxy.lines.values()):
        line.release()
    assert await stage.settle() == []
    assert stage.outsider.keys()["key"] == 0


@only(*POSTGRESQL)
async def test_a_commit_whose_reply_is_late(stage: Stage) -> None:
    stage.meet(Fault("COMMIT", "reply", "hold", seconds=0.8))

    await check_stored(stage)


class Stall:
    """The event loop stalls when the reply to COMMIT comes, until its time is over."""

    committing = False

    def sent(self, line: Line, data: bytes) -> bytes:
        self.committing = self.committing or b"COMMIT" in data
        return data

    def received(self, line: Line, data: bytes) -> bytes:
        if self.committing:
            line.trap = None
            line.give_back(data)
            time.sleep(1.2 * (SETTINGS.commit_timeout or 0))
            return b""
        return data


@only("psycopg-async", "asyncpg")
async def test_a_commit_that_is_done_at_the_moment_when_its_time_is_over(
    stage: Stage,
) -> None:
    for line in stage.proxy.lines.values():
        line.trap = Stall()

    reply = await stage.request("/insert/key")

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert stage.outsider.keys()["key"] == 1


@only(*SERVERS)
@pytest.mark.parametrize("settings", [UNVERIFIED])
@pytest.mark.parametrize(("side", "stored"), [("request", 0), ("reply", 1)])
async def test_a_commit_that_nobody_asks_about(
    stage: Stage, side: Any, stored: int
) -> None:
    stage.meet(Fault("COMMIT", side, "cut"))

    reply = await stage.request("/insert/key")

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, CommitUnknownError)
    assert stage.outsider.keys()["key"] == stored


# ROLLBACK


@only(*SERVERS)
@pytest.mark.parametrize("act", [*LOSSES, "hold"])
@pytest.mark.parametrize("side", ["request", "reply"])
async def test_killed_during_rollback(stage: Stage, act: Act, side: Any) -> None:
    stage.meet(Fault("ROLLBACK", side, act, seconds=0.8))

    reply = await stage.request("/refuse/key")

    assert (reply.status, reply.complete, reply.error) == (409, True, None)
    assert await stage.settle() == []
    assert stage.outsider.keys()["key"] == 0


@only(*SERVERS)
async def test_the_server_ends_the_connection_during_rollback(stage: Stage) -> None:
    stage.meet(Fault("ROLLBACK", "request", "kill"))

    reply = await stage.request("/refuse/key")

    assert (reply.status, reply.complete, reply.error) == (409, True, None)
    assert stage.outsider.keys()["key"] == 0


# Connecting


@only(*SERVERS)
@pytest.mark.parametrize("act", LOSSES)
@pytest.mark.parametrize("side", ["request", "reply"])
async def test_killed_while_connecting(stage: Stage, act: Act, side: Any) -> None:
    await drop_idle(stage)
    stage.meet_newcomer(Fault("bytes", side, act, number=5))

    await check_refused(stage)


async def drop_idle(stage: Stage) -> None:
    if (result := stage.db.dispose()) is not None:
        await result
