"""What COMMIT stores is reported right, though a query for the position follows it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import POSTGRESQL, Flavour, Observer
from support.models import add_item, add_orphan, names
from support.proxy import Proxy
from support.replicated import is_replica, replicated_flavour, with_driver
from unitwork import Outcome, UnexpectedRollbackError, current_unit
from unitwork._driver import postgresql_end
from unitwork._transaction import commit_events

pytestmark = pytest.mark.anyio

FAILS = "SELECT CAST('no number' AS int)"


@pytest.fixture
def observer(replicated: Flavour) -> Observer:
    return Observer(replicated.url)


async def write(flavour: Flavour) -> Any:
    """Write an item; the unit, once it has ended."""
    units: list[Any] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)

    await flavour.work(body)
    return units[0]


async def test_an_error_after_a_commit_is_not_taken_for_its_failure(
    replicated: Flavour, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_end, "position_query", lambda *a, **b: FAILS)
    unit = await write(replicated)

    assert (unit.outcome, observer.names()) == (Outcome.COMMITTED, ["one"])


async def test_without_a_position_the_client_reads_from_the_primary(
    replicated: Flavour, replication: Replication, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_end, "position_query", lambda *a, **b: FAILS)
    monkeypatch.setattr(commit_events, "position_query", lambda *a, **b: FAILS)
    unit = await write(replicated)
    replication.wait_caught_up()

    def read(session: Session) -> tuple[list[str], bool]:
        current_unit().read_after(unit.token)
        return names(session), is_replica(session)

    assert await replicated.work(read, read_only=True) == (["one"], False)


async def test_a_commit_that_fails_is_a_failure(
    replicated: Flavour, observer: Observer
) -> None:
    def orphan(session: Session) -> None:
        add_item(session)
        add_orphan(session)

    with pytest.raises(DBAPIError):
        await replicated.work(orphan)

    assert (observer.names(), observer.children()) == ([], 0)


async def test_a_transaction_that_is_aborted_is_not_reported_as_committed(
    replicated: Flavour, observer: Observer
) -> None:
    def swallow(session: Session) -> None:
        add_item(session)
        with suppress(DBAPIError):
            session.connection().exec_driver_sql("SELECT 1/0")

    with pytest.raises(UnexpectedRollbackError):
        await replicated.work(swallow)

    assert observer.names() == []


@pytest.mark.parametrize("name", POSTGRESQL)
async def test_a_reply_that_is_lost_is_looked_up(
    name: str, replication: Replication
) -> None:
    async with Proxy(replication.primary_url) as proxy:
        flavour = replicated_flavour(name, replication)
        replicas = [with_driver(url, name) for url in replication.replica_urls]
        url = with_driver(proxy.url, name)
        flavour.db = type(flavour.db)(url, replicas=replicas)
        proxy.when(b"COMMIT", lambda: lose_the_reply(proxy))
        unit = await write(flavour)
        await flavour.dispose()

    assert unit.outcome is Outcome.COMMITTED
    assert unit.token.split(".")[1] == ""  # the position is not known


def lose_the_reply(proxy: Proxy) -> None:
    """Cut the connections once the server has answered, before the client sees it."""

    class Cut:
        def sent(self, line: Any, data: bytes) -> bytes:
            return data

        def received(self, line: Any, data: bytes) -> bytes:
            line.cut()
            return b""

    for line in proxy.lines.values():
        line.trap = Cut()
