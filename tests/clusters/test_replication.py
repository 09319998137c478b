"""The private primary and replicas do what the tests that use them rely on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from servers.postgresql_replication import FIRST_PRIMARY, Replication

INSERT = "INSERT INTO item (name) VALUES ('one')"
COUNT = "SELECT count(*) FROM item"
FOREVER = """
from servers.postgresql_replication import Replication

with Replication() as replication:
    print(replication.primary.data.parent, flush=True)
    input()
"""


def test_a_replica_replays_what_the_primary_wrote(replication: Replication) -> None:
    replication.primary.execute(INSERT)
    replication.wait_caught_up()

    assert [server.ask(COUNT) for server in replication.servers] == [1, 1, 1]


def test_a_paused_replica_shows_the_past(replication: Replication) -> None:
    replication.pause(0)
    replication.primary.execute(INSERT)
    replication.servers[1].wait_for(f"{COUNT} WHERE name = 'one'", "lacks it")

    assert replication.servers[0].ask(COUNT) == 0
    replication.resume(0)
    replication.wait_caught_up()
    assert replication.servers[0].ask(COUNT) == 1


def test_a_delayed_replica_replays_later(replication: Replication) -> None:
    replication.set_delay(0, ms=60_000)
    replication.primary.execute(INSERT)
    replication.servers[1].wait_for(f"SELECT ({COUNT}) = 1", "lacks it")

    assert replication.servers[0].ask(COUNT) == 0
    replication.set_delay(0, ms=0)
    replication.wait_caught_up()


def test_a_killed_replica_catches_up_once_it_is_started(
    replication: Replication,
) -> None:
    replication.kill(1)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        replication.servers[1].connect()
    replication.primary.execute(INSERT)
    replication.start(1)
    replication.wait_caught_up()

    assert replication.servers[1].ask(COUNT) == 1


def test_a_frozen_replica_keeps_its_connections_and_does_not_answer(
    replication: Replication,
) -> None:
    with replication.servers[0].connect() as connection:
        replication.freeze(0)
        connection.pgconn.send_query(b"SELECT 1")
        assert connection.pgconn.is_busy()
        replication.thaw(0)
        assert connection.pgconn.get_result() is not None
        assert connection.pgconn.get_result() is None


def test_the_primary_fails_over_and_back(replication: Replication) -> None:
    replication.set_synchronous(True, commit="remote_apply")
    for _ in range(2):
        replication.primary.execute(INSERT.replace("one", replication.primary.name))
        replication.fail_over()
        replication.rejoin()
    replication.wait_caught_up()

    assert [server.ask(COUNT) for server in replication.servers] == [2, 2, 2]


def test_what_only_the_former_primary_has_is_undone(replication: Replication) -> None:
    replication.promote(0)
    replication.servers[FIRST_PRIMARY].execute(INSERT)
    replication.rejoin()
    replication.wait_caught_up()

    assert replication.primary_url == replication.replica_urls[0]
    assert [server.ask(COUNT) for server in replication.servers] == [0, 0, 0]


def test_a_reset_gives_back_the_first_roles_and_settings(
    replication: Replication,
) -> None:
    replication.set_delay(1, ms=60_000)
    assert not replication.reset()
    assert replication.servers[1].ask("SHOW recovery_min_apply_delay") == "0"
    replication.fail_over()
    assert replication.reset()

    recovering = [
        server.ask("SELECT pg_is_in_recovery()") for server in replication.servers
    ]
    assert recovering == [True, True, False]
    assert replication.primary_url == replication.first_primary_url


def test_nothing_is_left_behind() -> None:
    with Replication() as replication:
        home = replication.primary.data.parent
        replication.freeze(0)

    assert not home.exists()


def test_nothing_is_left_behind_by_a_process_that_was_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FOREVER],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        home = Path(process.stdout.readline().strip())
        assert home.is_dir()
        process.kill()

    deadline = time.monotonic() + 20
    while home.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
