"""A rollback that is requested when one of several databases has committed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from support.flavours import only
from support.models import add_item
from support.several import Two, add
from unitwork import Outcome, PartialCommitError, UnitOfWork, current_unit

pytestmark = pytest.mark.anyio

pairs = only("sqlite3", "psycopg", "asyncpg")
Body = Callable[[Session], None]


def roll_back_at_commit(session: Session) -> None:
    add_item(session)
    unit = current_unit()
    event.listen(session, "before_commit", lambda _: unit.rollback_only("late"))


def raise_after_commit(session: Session) -> None:
    def listener(session: Session) -> None:
        raise LookupError

    add_item(session)
    event.listen(session, "after_commit", listener)


@pairs
async def test_in_the_first_it_rolls_back_both(two: Two) -> None:
    units: list[UnitOfWork] = []

    async def endpoint() -> None:
        units.append(current_unit())
        await two.do_both(roll_back_at_commit, add)

    reply = await two.request(endpoint)

    assert (reply.status, units[0].outcome) == (200, Outcome.ROLLED_BACK)
    assert two.seen() == ([], [])


@pairs
async def test_in_the_second_it_is_a_partial_commit(two: Two) -> None:
    units: list[UnitOfWork] = []
    hooks: list[str] = []

    async def endpoint() -> None:
        units.append(current_unit())
        units[0].on_rollback(hooks.append, "rolled back")
        await two.do_both(add, roll_back_at_commit)

    reply = await two.request(endpoint)

    assert isinstance(reply.error, PartialCommitError)
    assert (units[0].outcome, hooks) == (Outcome.PARTIAL, [])
    assert two.seen() == (["one"], [])


@pairs
@pytest.mark.parametrize(
    "bodies", [(raise_after_commit, add), (add, raise_after_commit)]
)
async def test_a_listener_that_raises_after_a_commit_stops_nothing(
    two: Two, bodies: tuple[Body, Body]
) -> None:
    units: list[UnitOfWork] = []

    async def endpoint() -> None:
        units.append(current_unit())
        await two.do_both(*bodies)

    reply = await two.request(endpoint)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert units[0].outcome is Outcome.COMMITTED
    assert two.seen() == (["one"], ["one"])
