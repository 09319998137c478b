"""Two databases that are committed as one, and one of them fails over.

Its primary stops at PREPARE or at COMMIT PREPARED, and an asynchronous standby is
promoted that has received nothing of the transaction. The new primary has assigned the
same transaction id to another transaction, and committed that, before the unit looks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from faults.standby import Replicated, replicated
from support.asgi import Reply
from support.databases import empty_tables
from support.models import add_item
from support.pairs import COMMIT, PREPARE, Pair, Side, proxied
from support.proxy import Line
from support.twophase import ALL, NOTHING, add, recover_all
from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    Outcome,
    PartialCommitError,
)

pytestmark = pytest.mark.anyio

GIVING_UP = DatabaseSettings(verify_timeout=0.5)
ONLY_FIRST = (["one"], [])


@pytest.fixture
def servers() -> Iterator[Replicated]:
    with replicated() as servers:
        yield servers


@dataclass
class Failover:
    """A pair, of which one is on servers that fail over in the middle."""

    pair: Pair
    servers: Replicated
    moved: Side
    ids: list[int] = field(default_factory=list)
    status: str = ""
    """That of the transaction id, on the new primary."""

    def at(self, words: tuple[bytes, ...], *, on_answer: bool) -> None:
        self.moved.trap(words, self._fail_over, on_answer=on_answer)

    def at_commit_lost(self) -> None:
        """And no other transaction gets its id."""

        def act(line: Line) -> None:
            self.ids.clear()
            self._fail_over(line)

        self.moved.trap(COMMIT, act)

    def at_commit_replicated(self) -> None:
        """The standby has received all that comes before COMMIT PREPARED."""

        def act(line: Line) -> None:
            self.servers.catch_up()
            self.ids.clear()
            self._fail_over(line)

        self.moved.trap(COMMIT, act)

    def _fail_over(self, line: Line) -> None:
        self.servers.fail_over()
        if self.ids:
            self.status = self.servers.assign_again(self.ids[0])
        self.moved.direct = self.servers.standby
        self.moved.proxy.lead_to(self.servers.standby)
        line.cut()

    async def post(self) -> Reply:
        def work(session: Session) -> None:
            add_item(session)
            self.ids.append(session.scalar(text("SELECT txid_current()")) or 0)

        works = [work if side is self.moved else add for side in self.pair.sides]
        return await self.pair.post(*works)


@asynccontextmanager
async def failover(
    servers: Replicated, other: str, *, moved: str, driver: str
) -> AsyncIterator[Failover]:
    is_first = moved == "first"
    one, two = (servers.primary, other) if is_first else (other, servers.primary)
    async with (
        proxied(driver, "first", one, settings=GIVING_UP) as first,
        proxied(driver, "second", two, settings=GIVING_UP) as second,
    ):
        empty_tables(other)
        pair = Pair(first, second)
        yield Failover(pair, servers, first if is_first else second)
        await recover_all(pair)


@pytest.mark.parametrize(
    ("driver", "on_answer"), [("psycopg", False), ("asyncpg", True)]
)
async def test_a_first_whose_commit_is_lost_with_its_server_is_unknown(
    servers: Replicated, postgresql: str, driver: str, on_answer: bool
) -> None:
    servers.hold_back()
    async with failover(servers, postgresql, moved="first", driver=driver) as over:
        over.at(COMMIT, on_answer=on_answer)

        reply = await over.post()

        assert (over.status, over.moved.observer.names()) == ("committed", [])
        assert (reply.status, type(reply.error)) == (500, CommitUnknownError)
        assert over.pair.seen() == NOTHING
        assert over.pair.units[0].outcome is Outcome.UNKNOWN
        assert over.pair.hooks == ["on_unknown"]


async def test_a_first_that_is_known_to_be_lost_takes_the_second_along(
    servers: Replicated, postgresql: str
) -> None:
    servers.hold_back()
    async with failover(servers, postgresql, moved="first", driver="psycopg") as over:
        over.at_commit_lost()

        reply = await over.post()

        assert type(reply.error) is CommitUnknownError
        assert over.pair.units[0].outcome is Outcome.UNKNOWN
        assert await recover_all(over.pair) == []
        assert over.pair.seen() == NOTHING


@pytest.mark.parametrize(
    ("driver", "on_answer"), [("psycopg", False), ("asyncpg", True)]
)
async def test_a_second_whose_commit_is_lost_with_its_server_is_unknown(
    servers: Replicated, postgresql: str, driver: str, on_answer: bool
) -> None:
    servers.hold_back()
    async with failover(servers, postgresql, moved="second", driver=driver) as over:
        over.at(COMMIT, on_answer=on_answer)

        reply = await over.post()

        error = reply.error
        assert (over.status, over.moved.observer.names()) == ("committed", [])
        assert isinstance(error, PartialCommitError)
        assert (error.committed, error.unknown) == (("first",), ("second",))
        assert (reply.status, over.pair.seen()) == (500, ONLY_FIRST)
        assert over.pair.units[0].outcome is Outcome.PARTIAL


@pytest.mark.parametrize("on_answer", [False, True])
@pytest.mark.parametrize("moved", ["first", "second"])
async def test_a_prepare_that_is_lost_with_its_server_stores_nothing(
    servers: Replicated, postgresql: str, moved: str, on_answer: bool
) -> None:
    servers.hold_back()
    async with failover(servers, postgresql, moved=moved, driver="psycopg") as over:
        over.at(PREPARE, on_answer=on_answer)

        reply = await over.post()

        outcome = Outcome.ROLLED_BACK if moved == "first" else Outcome.UNKNOWN
        assert over.status == "committed"
        assert (reply.status, over.pair.units[0].outcome) == (500, outcome)
        await recover_all(over.pair)
        assert over.pair.seen() == NOTHING


@pytest.mark.parametrize("moved", ["first", "second"])
async def test_a_standby_that_has_received_prepare_commits_it(
    servers: Replicated, postgresql: str, moved: str
) -> None:
    async with failover(servers, postgresql, moved=moved, driver="psycopg") as over:
        over.at_commit_replicated()

        reply = await over.post()

        assert (reply.status, reply.error) == (200, None)
        assert over.pair.seen() == ALL
