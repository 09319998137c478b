"""Release mode "statement": a unit that reads holds a connection only meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import column, select
from sqlalchemy.orm import Session

from support.flavours import MARIADB, POSTGRESQL, Flavour, Observer, everywhere, only
from support.models import Item, add_item, names
from support.proxy import Proxy, RoundTrips
from support.releasing import checked_out, releasing
from unitwork import Outcome, current_unit

pytestmark = pytest.mark.anyio


@everywhere
async def test_a_unit_that_reads_holds_nothing_between_its_statements(
    flavour: Flavour, released: Flavour, observer: Observer
) -> None:
    await flavour.work(add_item)
    async with released.block() as session:
        assert await released.do(session, names) == ["one"]
        assert checked_out(released) == 0
        assert observer.in_transaction() == []
        assert await released.do(session, lambda s: s.get(Item, 1)) is not None
        assert checked_out(released) == 0


@everywhere
async def test_a_write_begins_the_transaction(
    released: Flavour, observer: Observer
) -> None:
    async with released.block() as session:
        await released.do(session, names)
        await released.do(session, lambda s: add_item(s) and None)
        assert checked_out(released) == 1
        assert await released.do(session, names) == ["one"]
        assert observer.names() == []

    assert observer.names() == ["one"]


@everywhere
async def test_what_was_written_after_reads_is_rolled_back(
    released: Flavour, observer: Observer
) -> None:
    def write_and_fail(session: Session) -> None:
        names(session)
        add_item(session)
        raise LookupError

    with pytest.raises(LookupError):
        await released.work(write_and_fail)

    assert observer.names() == []


TRIPS = {name: 1 for name in POSTGRESQL} | {name: 2 for name in MARIADB}


@only(*POSTGRESQL, *MARIADB)
async def test_a_read_costs_one_round_trip(flavour: Flavour) -> None:
    async with Proxy(flavour.url) as proxy:
        there = releasing(replace(flavour, url=proxy.url), pool_size=1)
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        for _ in range(8):  # by then the drivers have prepared the statement
            await there.work(lambda s: s.get(Item, 1))
        before = trips.count
        await there.work(lambda s: s.get(Item, 1))
        made = trips.count - before
        await there.dispose()

    assert made == TRIPS[flavour.name]  # on MariaDB SELECT and ROLLBACK


@only(*POSTGRESQL)
async def test_a_write_costs_what_it_always_does(flavour: Flavour) -> None:
    async with Proxy(flavour.url) as proxy:
        there = releasing(replace(flavour, url=proxy.url), pool_size=1)
        trips = RoundTrips()
        proxy.for_newcomers.append(trips)
        for number in range(8):
            await there.work(lambda s, n=number: add_item(s, f"{n}") and None)
        before = trips.count
        await there.work(lambda s: add_item(s) and None)
        made = trips.count - before
        await there.dispose()

    assert made == 3  # BEGIN, INSERT, COMMIT


@everywhere
async def test_the_outcome_of_reads_is_empty_and_hooks_run(
    released: Flavour, done: list[str]
) -> None:
    async with released.block() as session:
        unit = current_unit()
        unit.on_commit(done.append, "committed")
        await released.do(session, names)

    assert unit.outcome is Outcome.EMPTY
    assert done == ["committed"]


@everywhere
async def test_hooks_of_a_unit_that_fails_after_reads_are_those_of_a_rollback(
    released: Flavour, done: list[str]
) -> None:
    def read_and_fail(session: Session) -> None:
        current_unit().on_commit(done.append, "committed")
        current_unit().on_rollback(done.append, "rolled back")
        names(session)
        raise LookupError

    with pytest.raises(LookupError):
        await released.work(read_and_fail)

    assert done == ["rolled back"]


@everywhere
async def test_loaded_objects_stay_loaded(flavour: Flavour, released: Flavour) -> None:
    await flavour.work(add_item)
    async with released.block() as session:
        item = await released.do(session, lambda s: s.scalars(select(Item)).one())
        await released.do(session, names)
        assert item.name == "one"
        again = await released.do(session, lambda s: s.get(Item, item.id))
        assert again is item


@everywhere
async def test_a_loaded_object_is_refreshed_and_changed(
    flavour: Flavour, released: Flavour, observer: Observer
) -> None:
    def refresh_and_change(session: Session) -> None:
        item = session.scalars(select(Item)).one()
        session.expire(item)
        session.refresh(item)
        item.name = "two"
        assert checked_out(released) == 0

    await flavour.work(add_item)
    await released.work(refresh_and_change)

    assert observer.names() == ["two"]


async def test_rollback_by_hand_undoes_what_is_not_flushed(
    flavour: Flavour, released: Flavour, observer: Observer
) -> None:
    def change_and_roll_back(session: Session) -> None:
        item = session.scalars(select(Item)).one()
        item.name = "two"
        session.rollback()

    await flavour.work(add_item)
    await released.work(change_and_roll_back)

    assert observer.names() == ["one"]


@only(*POSTGRESQL, *MARIADB)
@pytest.mark.parametrize(("use", "stored"), [(names, []), (add_item, ["one"])])
async def test_a_connection_that_the_server_has_dropped_costs_nothing(
    released: Flavour, observer: Observer, use: Any, stored: list[str]
) -> None:
    await released.work(names)
    observer.terminate_all()

    async with released.block() as session:
        await released.do(session, lambda s: use(s) and None)

    assert observer.names() == stored


@only(*POSTGRESQL)
async def test_a_connection_that_dies_before_a_later_write_costs_nothing(
    released: Flavour, observer: Observer
) -> None:
    async with released.block() as session:
        await released.do(session, names)
        observer.terminate_all()
        await released.do(session, lambda s: add_item(s) and None)

    assert observer.names() == ["one"]


@everywhere
async def test_a_read_that_fails_loses_nothing(
    flavour: Flavour, released: Flavour, observer: Observer
) -> None:
    def fail(session: Session) -> None:
        with pytest.raises(Exception, match="no_such"):
            session.execute(select(column("no_such")).select_from(Item)).all()

    async with released.block() as session:
        await released.do(session, fail)
        assert checked_out(released) == 0
        await released.do(session, lambda s: add_item(s) and None)

    assert observer.names() == ["one"]
