"""P4, P5 when the primary is lost and a replica takes its place."""

from __future__ import annotations

from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from faults.failover import SETTINGS, VERIFYING, multi_host, run
from servers.postgresql_replication import FIRST_PRIMARY, Replication
from support.asgi import call
from support.flavours import FLAVOURS, POSTGRESQL, Flavour, kind_of
from support.models import add_item
from support.proxy import Proxy
from unitwork import (
    CommitUnknownError,
    CommitVerifier,
    DatabaseSettings,
    DBSessionMiddleware,
    Kind,
    LogPositionVerifier,
    Retry,
    RetryPolicy,
    classify,
    transactional,
)
from unitwork._transaction.commit_status import TransactionStatus
from unitwork.fastapi import exception_handlers

pytestmark = pytest.mark.anyio

VERIFIERS: list[CommitVerifier] = [TransactionStatus(), LogPositionVerifier()]
each_verifier = pytest.mark.parametrize("verifier", VERIFIERS, ids=["id", "position"])
each_driver = pytest.mark.parametrize("driver", POSTGRESQL)
INSERT = text("INSERT INTO item (name) VALUES ('theirs')")
NUMBER = text("SELECT txid_current()")


@pytest.mark.parametrize(
    ("driver", "settings"),
    [("asyncpg", SETTINGS), ("psycopg", VERIFYING), ("psycopg-async", SETTINGS)],
    ids=["asyncpg-id", "psycopg-position", "psycopg-async-id"],
)
async def test_no_client_is_told_a_lie_when_primaries_are_killed(
    replication: Replication, driver: str, settings: DatabaseSettings
) -> None:
    report = await run(driver, replication, 2, settings)

    assert report.wrong == []
    assert report.failovers == 2


# COMMIT in doubt


class Doubt:
    """A transaction on a primary that is lost, and what its verifier says after."""

    def __init__(self, servers: Replication, verifier: CommitVerifier) -> None:
        self.servers = servers
        self.verifier = verifier
        self.engine = engine_of(servers.primary_url)
        self.connection = self.engine.connect()
        self.connection.execute(INSERT)
        self.txid: int = self.connection.execute(NUMBER).scalar_one()
        self.mark: Any = verifier.before_commit(self.connection)

    def fail_over(self) -> None:
        self.servers.fail_over()
        self.connection.invalidate()
        self.connection.close()
        self.engine.dispose()

    def assign_again(self) -> None:
        """Let the new primary commit transactions until one has its id."""
        with engine_of(self.servers.primary_url).connect() as promoted:
            while promoted.execute(NUMBER).scalar_one() < self.txid:
                promoted.commit()
            promoted.commit()
            status = promoted.scalar(text("SELECT txid_status(:n)"), {"n": self.txid})
        assert status == "committed"

    def ask(self) -> bool | None:
        with engine_of(self.servers.primary_url).connect() as connection:
            return self.verifier.committed(connection, self.mark)


def engine_of(url: str) -> Engine:
    there = make_url(url).set(drivername="postgresql+psycopg")
    return create_engine(there, poolclass=NullPool)


def hold_back(servers: Replication) -> None:
    """From now on no replica receives anything."""
    servers.wait_caught_up()
    for number in range(len(servers.replica_urls)):
        servers.configure(number, primary_conninfo="")
    senders = "SELECT count(*) = 0 FROM pg_stat_replication"
    servers.primary.wait_for(senders, "is followed")


def wait_until_known(servers: Replication) -> None:
    """Wait until replicas are known not to have crashed in the last second."""
    age = "SELECT clock_timestamp() - stats_reset > '1.2 s' FROM pg_stat_bgwriter"
    for server in servers.servers[: len(servers.replica_urls)]:
        server.wait_for(age, "has just been started")


@each_verifier
async def test_a_commit_that_no_replica_has_received_is_known_to_be_lost(
    replication: Replication, verifier: CommitVerifier
) -> None:
    hold_back(replication)
    doubt = Doubt(replication, verifier)
    doubt.connection.commit()

    doubt.fail_over()

    assert doubt.ask() is False


async def test_an_id_that_was_assigned_again_is_not_taken_for_the_transaction(
    replication: Replication,
) -> None:
    hold_back(replication)
    doubt = Doubt(replication, TransactionStatus())
    doubt.connection.commit()
    doubt.fail_over()
    doubt.assign_again()

    with pytest.raises(CommitUnknownError, match=r"assigned the id .* again"):
        doubt.ask()


async def test_the_log_position_shows_that_an_id_was_assigned_again(
    replication: Replication,
) -> None:
    wait_until_known(replication)
    hold_back(replication)
    doubt = Doubt(replication, LogPositionVerifier())
    doubt.connection.commit()
    doubt.fail_over()
    doubt.assign_again()

    assert doubt.ask() is False


async def test_the_log_position_shows_that_a_commit_was_replicated(
    replication: Replication,
) -> None:
    wait_until_known(replication)
    doubt = Doubt(replication, LogPositionVerifier())
    doubt.connection.commit()
    replication.wait_caught_up()

    doubt.fail_over()

    assert doubt.ask() is True


@each_verifier
async def test_a_transaction_that_was_open_at_the_failover_is_known_to_be_lost(
    replication: Replication, verifier: CommitVerifier
) -> None:
    doubt = Doubt(replication, verifier)

    doubt.fail_over()

    assert doubt.ask() is False


async def test_after_two_failovers_the_outcome_is_unknown(
    replication: Replication,
) -> None:
    doubt = Doubt(replication, LogPositionVerifier())
    doubt.connection.commit()
    replication.wait_caught_up()
    doubt.fail_over()
    replication.rejoin()
    replication.wait_caught_up()
    replication.fail_over()

    with pytest.raises(CommitUnknownError):
        doubt.ask()


async def test_a_replica_can_not_tell_the_outcome(replication: Replication) -> None:
    doubt = Doubt(replication, LogPositionVerifier())
    doubt.connection.commit()
    replication.wait_caught_up()
    (url, *_) = replication.replica_urls

    with engine_of(url).connect() as connection, closing(doubt.connection):
        assert doubt.verifier.committed(connection, doubt.mark) is None


# Servers that refuse to write


def database(driver: str, url: str, **options: Any) -> Flavour:
    there = make_url(url).set(drivername=FLAVOURS[driver]).render_as_string(False)
    return Flavour(driver, there, kind_of(driver)(there, **options))


def serve(
    flavour: Flavour, retry: RetryPolicy | None = None, **options: Any
) -> FastAPI:
    app = FastAPI(exception_handlers=exception_handlers)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, retry=retry)

    def body(session: Session) -> None:
        add_item(session, f"{uuid4()}")

    app.post("/")(transactional(**options)(flavour.endpoint(body)))
    return app


async def pid(flavour: Flavour) -> int:
    query = text("SELECT pg_backend_pid()")
    return int(await flavour.work(lambda session: session.scalar(query)))


@each_driver
async def test_a_server_that_was_demoted_is_given_up_with_all_its_connections(
    replication: Replication, driver: str
) -> None:
    flavour = database(driver, replication.replica_urls[0])
    before = await pid(flavour)

    reply = await call(serve(flavour), "POST", "/")

    assert reply.status == 503
    assert await pid(flavour) != before
    await flavour.dispose()


@each_driver
async def test_a_unit_on_a_server_that_was_demoted_is_repeated_on_the_primary(
    replication: Replication, driver: str
) -> None:
    async with Proxy(replication.replica_urls[0]) as proxy:
        flavour = database(driver, proxy.url)
        errors: list[BaseException] = []

        def fail_over(retry: Retry) -> None:
            errors.append(retry.error)
            proxy.lead_to(replication.primary_url)

        policy = RetryPolicy(before_retry=fail_over)
        app = serve(flavour, policy, attempts=2)

        assert (await call(app, "POST", "/")).status == 200
        await flavour.dispose()

    (found,) = map(classify, errors)
    assert (found.kind, found.code) == (Kind.RECONNECT, "25006")


@each_driver
async def test_a_server_that_becomes_read_only_is_noticed_on_its_old_connections(
    replication: Replication, driver: str
) -> None:
    flavour = database(driver, replication.primary_url)
    before = await pid(flavour)
    replication.configure(FIRST_PRIMARY, default_transaction_read_only="on")

    assert (await call(serve(flavour), "POST", "/")).status == 503

    replication.configure(FIRST_PRIMARY, default_transaction_read_only="off")
    assert (await call(serve(flavour), "POST", "/")).status == 200
    assert await pid(flavour) != before
    await flavour.dispose()


@each_driver
async def test_a_transaction_that_is_read_only_by_itself_gives_up_no_connection(
    replication: Replication, driver: str
) -> None:
    flavour = database(driver, replication.primary_url)
    before = await pid(flavour)

    def body(session: Session) -> None:
        session.execute(text("SET TRANSACTION READ ONLY"))
        add_item(session)

    with pytest.raises(DBAPIError) as caught:
        await flavour.work(body)

    assert classify(caught.value).kind is Kind.PRIMARY
    assert await pid(flavour) == before
    await flavour.dispose()


@each_driver
async def test_a_url_with_several_hosts_finds_the_new_primary(
    replication: Replication, driver: str
) -> None:
    url = multi_host(driver, replication)
    flavour = Flavour(driver, url, kind_of(driver)(url))
    app = serve(flavour, attempts=20)
    assert (await call(app, "POST", "/")).status == 200

    replication.fail_over()

    assert (await call(app, "POST", "/")).status == 200
    await flavour.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_without_any_primary_the_answer_is_503(
    replication: Replication, driver: str
) -> None:
    url = multi_host(driver, replication)
    flavour = Flavour(driver, url, kind_of(driver)(url))
    replication.kill_primary()

    reply = await call(serve(flavour), "POST", "/")

    assert reply.status == 503
    await flavour.dispose()
