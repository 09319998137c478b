"""What is prepared is taken back, and that fails, too, or takes its time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.databases import empty_tables
from support.models import Child, add_item
from support.pairs import PREPARE, Pair, Side, another_database, proxied
from support.pool import eventually
from support.proxy import Line
from support.twophase import add, back_in_reach, only_pairs, recover_all
from unitwork import CommitUnknownError, DatabaseSettings, Outcome

pytestmark = pytest.mark.anyio

ROLLBACK = (b"ROLLBACK PREPARED",)


# Of three databases


@dataclass
class Three(Pair):
    """Three databases of one application."""

    others: list[Side] = field(default_factory=list)

    @property
    def sides(self) -> tuple[Side, ...]:
        return self.first, self.second, *self.others


@pytest.fixture(scope="session")
def third_postgresql(second_postgresql: str) -> Iterator[str]:
    with another_database(second_postgresql) as url:
        yield url


@pytest.fixture(params=["psycopg", "asyncpg"])
async def three(
    request: pytest.FixtureRequest,
    postgresql: str,
    second_postgresql: str,
    third_postgresql: str,
) -> AsyncIterator[Three]:
    driver, settings = request.param, DatabaseSettings(verify_timeout=0.5)
    async with (
        proxied(driver, "first", postgresql, settings=settings) as first,
        proxied(driver, "second", second_postgresql, settings=settings) as second,
        proxied(driver, "third", third_postgresql, settings=settings) as third,
    ):
        for side in (first, second, third):
            empty_tables(side.direct)
        yield Three(first, second, others=[third])


@pytest.mark.parametrize("on_answer", [False, True])
async def test_the_first_stays_prepared_while_the_third_may_be(
    three: Three, on_answer: bool
) -> None:
    """The second can be taken back on another connection; of the third that is open."""

    def out_of_reach(line: Line) -> None:
        three.sides[2].proxy.refusing = 10**6
        line.cut()

    three.sides[2].trap(PREPARE, out_of_reach, on_answer=on_answer)
    three.second.trap(ROLLBACK, lambda line: line.cut())

    reply = await three.post(add, add, add)

    left = three.prepared()
    back_in_reach(three.sides[2])
    done = await recover_all(three)
    assert [side.observer.names() for side in three.sides] == [[], [], []]
    assert len(left) == 1 + on_answer
    assert done == ["third rolled back"] * on_answer + ["first rolled back"]
    assert type(reply.error) is CommitUnknownError
    assert three.units[0].outcome is Outcome.UNKNOWN


# A PREPARE that is under way


def mark(test: Any) -> Any:
    test.settings = DatabaseSettings(commit_timeout=0.3, verify_timeout=2.0)
    return test


@mark
@only_pairs(("psycopg", "psycopg"), ("asyncpg", "asyncpg"))
async def test_a_prepare_that_waits_in_the_server_is_ended(pair: Pair) -> None:
    plain = make_url(pair.second.direct).set(drivername="postgresql")
    url = plain.render_as_string(hide_password=False)

    def add_child(session: Session) -> None:
        session.add(Child(parent_id=1))
        session.flush()

    with psycopg.connect(url) as other:
        other.execute("INSERT INTO item (name) VALUES ('parent')")
        other.commit()
        other.execute("SELECT 1 FROM item FOR UPDATE")  # which the foreign key needs

        reply = await pair.post(add_item, add_child)

        assert pair.units[0].outcome is Outcome.ROLLED_BACK
        assert reply.status == 500
        assert pair.prepared() == []
    await eventually(lambda: pair.second.observer.children() == 0)
    assert pair.first.observer.names() == []
