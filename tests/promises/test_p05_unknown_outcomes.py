"""P5: a COMMIT whose answer never came is settled by the database, or called unknown.

`held` makes COMMIT wait in the server, so that something can happen meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.commit_server import WAIT_AT_COMMIT, Server, held, served
from support.flavours import POSTGRESQL, Flavour, only
from support.models import add_item
from support.pool import check_pool_is_whole, eventually
from unitwork import CommitUnknownError, Outcome
from unitwork._transaction.commit_status import TransactionStatus

pytestmark = pytest.mark.anyio


# Settled


@only(*POSTGRESQL)
async def test_a_commit_that_never_came_is_an_ordinary_failure(server: Server) -> None:
    async with served(server):
        server.proxy.when(b"COMMIT", server.proxy.cut)
        reply = await server.post()

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, DBAPIError)
    assert (server.observer.names(), server.outcome) == ([], Outcome.ROLLED_BACK)
    assert server.calls == ["on_rollback"]


@only(*POSTGRESQL)
async def test_a_commit_whose_answer_was_lost_is_a_success(server: Server) -> None:
    async with served(server):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.cut()
        reply = await request

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert (server.observer.names(), server.outcome) == (["one"], Outcome.COMMITTED)
    assert server.calls == ["on_commit", "background"]


class Asked(TransactionStatus):
    """Keeps what it has answered."""

    def __init__(self) -> None:
        self.answers: list[bool | None] = []

    def committed(self, connection: Connection, mark: Any) -> bool | None:
        self.answers.append(TransactionStatus.committed(self, connection, mark))
        return self.answers[-1]


@only(*POSTGRESQL)
async def test_a_commit_that_is_still_under_way_is_waited_for(server: Server) -> None:
    status = Asked()
    async with served(server, verify_commit=status):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.cut()
            await eventually(lambda: len(status.answers) > 1)
            assert not request.done()
        reply = await request

    assert (reply.status, server.observer.names()) == (200, ["one"])


@only(*POSTGRESQL)
async def test_a_server_that_gives_up_in_the_middle_of_commit(server: Server) -> None:
    async with served(server):
        with held(server) as other:
            request = asyncio.create_task(server.post())
            pid = await server.committing()
            other.execute(f"SELECT pg_terminate_backend({pid})")
            reply = await request

    assert (reply.status, server.outcome) == (500, Outcome.ROLLED_BACK)
    assert isinstance(reply.error, DBAPIError)
    assert (server.observer.names(), server.calls) == ([], ["on_rollback"])


@only(*POSTGRESQL)
async def test_a_commit_that_takes_too_long_is_broken_off_and_asked_about(
    server: Server,
) -> None:
    status = Asked()
    async with served(server, commit_timeout=0.2, verify_commit=status):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            await eventually(lambda: status.answers != [])
        reply = await request

    assert (reply.status, server.observer.names()) == (200, ["one"])


@only(*POSTGRESQL)
async def test_a_backend_that_waits_for_a_commit_in_vain_is_ended(
    server: Server,
) -> None:
    async with served(server, commit_timeout=0.2):
        server.proxy.when(b"COMMIT", server.proxy.swallow)
        request = asyncio.create_task(server.post())
        await eventually(lambda: server.proxy.swallowing)
        await eventually(lambda: server.observer.in_transaction() != [])
        server.proxy.swallowing = False  # for those who ask
        reply = await request

        assert (reply.status, server.outcome) == (500, Outcome.ROLLED_BACK)
        assert server.observer.names() == []


@only(*POSTGRESQL)
async def test_a_block_whose_commit_is_confirmed_later_keeps_its_objects(
    server: Server,
) -> None:
    there = server.serve()
    items = []

    def body(session: Session) -> None:
        items.append(add_item(session))
        session.execute(text(WAIT_AT_COMMIT))

    with held(server):
        block = asyncio.create_task(there.work(body))
        await server.committing()
        server.proxy.cut()
    await block

    assert (items[0].id, items[0].name) == (1, "one")
    assert server.observer.names() == ["one"]
    await there.dispose()


@only(*POSTGRESQL)
async def test_the_pool_is_whole_afterwards(server: Server) -> None:
    async with served(server):
        server.proxy.when(b"COMMIT", server.proxy.cut)
        await server.post()
        reply = await server.post()

        assert (reply.status, server.observer.names()) == (200, ["one"])
    await check_pool_is_whole(server.flavour)


# Unknown


@only(*POSTGRESQL)
@pytest.mark.parametrize("verify", [True, False])
async def test_what_nobody_can_tell_is_called_unknown(
    server: Server, verify: bool
) -> None:
    async with served(server, verify_commit=verify, verify_timeout=0.3):
        with held(server):
            request = asyncio.create_task(server.post())
            await server.committing()
            server.proxy.refusing = 1_000
            server.proxy.cut()
            reply = await request

    assert (reply.status, reply.complete) == (500, True)
    assert isinstance(reply.error, CommitUnknownError)
    assert isinstance(reply.error.__cause__, Exception)
    assert (server.outcome, server.calls) == (Outcome.UNKNOWN, ["on_unknown"])
    await eventually(lambda: server.observer.names() == ["one"])


@only("psycopg", "asyncpg")
@pytest.mark.parametrize("other", [{"timeline": "000000FF"}, {"system": 1}])
async def test_another_history_can_not_tell(
    flavour: Flavour, other: dict[str, Any]
) -> None:
    """After a failover the same number may be that of another transaction."""
    status = TransactionStatus()

    def work(session: Session) -> list[bool | None]:
        add_item(session)
        mark = status.before_commit(session.connection())
        assert mark is not None
        session.commit()
        there = mark.installation._replace(**other)
        marks = (mark, mark._replace(installation=there))
        return [status.committed(session.connection(), each) for each in marks]

    right, wrong = await flavour.work(work)

    assert (right, wrong) == (True, None)


@only("psycopg", "asyncpg")
@pytest.mark.parametrize("other", [{"timeline": "00000000"}, {"stats_reset": "then"}])
async def test_a_number_of_the_time_before_a_crash_or_failover_tells_nothing_for_ever(
    flavour: Flavour, other: dict[str, Any]
) -> None:
    status = TransactionStatus()

    def work(session: Session) -> None:
        add_item(session)
        mark = status.before_commit(session.connection())
        assert mark is not None
        session.commit()
        before = mark.installation._replace(**other)
        status.committed(session.connection(), mark._replace(installation=before))

    with pytest.raises(CommitUnknownError):
        await flavour.work(work)
