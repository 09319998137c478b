"""A replica that has left the primary's history lacks writes, however far it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from servers.postgresql_replication import FIRST_PRIMARY, Replication
from support.flavours import Flavour, only
from support.models import names
from support.replicated import is_replica, replicated_flavour, token_of_write
from unitwork import current_unit
from unitwork._driver.wal_position import WalPosition
from unitwork._replicas.position import Position, decode, encode

pytestmark = pytest.mark.anyio

# So little that it is in the same file of the log.
LOST = "INSERT INTO item (name) SELECT 'lost' || i FROM generate_series(1, 500) AS i"
ACCOUNT = """
DROP ROLE IF EXISTS app;
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA public TO app;
GRANT SELECT ON item TO app
"""


@pytest.fixture
async def parted(flavour: Flavour, replication: Replication) -> AsyncIterator[Flavour]:
    """Replica 0 was promoted; replica 1 was ahead of it, and can't follow it."""
    replication.servers[0].configure(primary_conninfo="")
    replication.primary.execute(LOST)
    is_ahead = "SELECT count(*) = 500 FROM item"
    replication.servers[1].wait_for(is_ahead, "is not ahead")
    replication.kill(FIRST_PRIMARY)
    replication.promote(0)
    ahead = [with_account(replication.replica_urls[1], flavour.name)]
    found = replicated_flavour(flavour.name, replication, replicas=ahead)
    yield found
    await found.dispose()


def with_account(url: str, driver: str, **account: Any) -> str:
    name = f"postgresql+{driver}"
    found = make_url(url).set(drivername=name, **account)
    return found.render_as_string(False)


async def read_after(flavour: Flavour, token: str) -> tuple[list[str], bool]:
    """What a read with *token* finds, and whether a replica has served it."""

    def read(session: Session) -> tuple[list[str], bool]:
        current_unit().read_after(token)
        return names(session), is_replica(session)

    found: tuple[list[str], bool] = await flavour.work(read, read_only=True)
    return found


@only("asyncpg", "psycopg")
async def test_a_replica_that_was_ahead_of_the_promoted_one_is_no_proof(
    parted: Flavour,
) -> None:
    token = await token_of_write(parted, "kept")

    assert await read_after(parted, token) == (["kept"], False)
    assert await read_after(parted, token) == (["kept"], False)


@only("asyncpg")
async def test_a_replica_that_can_not_follow_the_primary_is_behind(
    parted: Flavour, replication: Replication
) -> None:
    await token_of_write(parted, "kept")
    late = "SELECT clock_timestamp() - pg_last_xact_replay_timestamp() > '1.5 s'"
    replication.servers[1].wait_for(late, "has replayed something")
    url = with_account(replication.replica_urls[1], parted.name)
    strict = replicated_flavour(
        parted.name, replication, replicas=[url], replica_max_lag=1.0
    )

    assert await strict.work(names, read_only=True) == ["kept"]
    await strict.dispose()


@only("asyncpg")
@pytest.mark.parametrize("role", ["pg_read_all_stats", "pg_checkpoint"])
async def test_a_replica_that_has_followed_the_promoted_one_has_its_writes(
    flavour: Flavour, replication: Replication, role: str
) -> None:
    """Without the role for statistics its timeline is known from a checkpoint on."""
    replication.primary.execute(f"{ACCOUNT}; GRANT {role} TO app")
    replication.wait_caught_up()
    replication.kill(FIRST_PRIMARY)
    replication.promote(0)
    url = with_account(replication.replica_urls[1], flavour.name, username="app")
    before, after = (
        replicated_flavour(flavour.name, replication, replicas=[url]) for _ in range(2)
    )
    token = await token_of_write(before, "kept")
    replication.wait_caught_up()
    found = await read_after(before, token)
    replication.primary.execute("CHECKPOINT")
    replication.wait_caught_up()
    replication.servers[1].execute("CHECKPOINT")

    assert found == (["kept"], role == "pg_read_all_stats")
    assert await read_after(after, token) == (["kept"], True)
    await before.dispose()
    await after.dispose()


@only("asyncpg")
async def test_another_installation_is_no_proof(
    flavour: Flavour, replication: Replication
) -> None:
    db = replicated_flavour(flavour.name, replication)
    token = await token_of_write(db, "kept")
    replication.wait_caught_up()
    (position,) = decode(token).values()
    assert isinstance(position.at, WalPosition)
    elsewhere = position.at._replace(system=1, lsn=1)
    other = encode({"default": Position(elsewhere, position.until)})

    assert await read_after(db, token) == (["kept"], True)
    assert await read_after(db, other) == (["kept"], False)
    await db.dispose()


@only("asyncpg")
async def test_a_replica_that_was_promoted_and_restarted_is_not_read(
    flavour: Flavour, replication: Replication
) -> None:
    replication.servers[1].execute("SELECT pg_promote()")
    replication.kill(1)
    replication.start(1)
    url = with_account(replication.replica_urls[1], flavour.name)
    db = replicated_flavour(flavour.name, replication, replicas=[url])
    await db.work(names, read_only=True)

    assert "promoted" in db.db.replica_status()[0].reason
    await db.dispose()
