"""Deferred constraints are checked at the COMMIT of a unit, and only there."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from support.flavours import EVERY, POSTGRESQL, Flavour, only
from support.models import Child, Item, add_item
from support.sandboxes import count
from unitwork.testing import Sandbox

pytestmark = pytest.mark.anyio


def add_orphan(session: Session) -> None:
    session.add(Child(parent_id=999))
    session.flush()  # deferred: not checked yet


@only(*EVERY)
async def test_a_violation_is_found_at_the_commit_of_its_unit(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(IntegrityError):
        await flavour.work(add_orphan)
    await flavour.work(add_item)

    assert await flavour.work(count) == 1


@only(*EVERY)
async def test_a_violation_that_is_repaired_in_time_is_none(
    flavour: Flavour, box: Sandbox
) -> None:
    def work(session: Session) -> None:
        add_orphan(session)
        session.execute(delete(Child))

    for _ in range(2):  # deferred again, after the first COMMIT
        await flavour.work(work)

    assert await flavour.work(lambda s: s.scalars(select(Child.id)).all()) == []


@only(*EVERY)
async def test_the_next_unit_has_nothing_of_a_violation(
    flavour: Flavour, box: Sandbox
) -> None:
    with pytest.raises(IntegrityError):
        await flavour.work(add_orphan)

    assert await flavour.work(lambda s: list(s.scalars(select(Child.id)))) == []


@only(*POSTGRESQL)
async def test_a_constraint_that_is_immediate_at_first_stays_so(
    flavour: Flavour, box: Sandbox
) -> None:
    await flavour.work(
        lambda session: session.execute(
            text(
                "ALTER TABLE item ADD CONSTRAINT upper_case "
                "UNIQUE (name) DEFERRABLE INITIALLY IMMEDIATE"
            )
        )
    )
    await flavour.work(add_item)

    def work(session: Session) -> None:
        session.add(Item(name="two"))
        session.flush()
        with pytest.raises(IntegrityError):
            session.execute(text("UPDATE item SET name = 'one'"))
        session.rollback()

    await flavour.work(work)


@only(*POSTGRESQL)
async def test_a_constraint_made_in_the_sandbox_is_deferred_too(
    flavour: Flavour, box: Sandbox
) -> None:
    await flavour.work(make_table)

    for _ in range(2):
        with pytest.raises(IntegrityError):
            await flavour.work(insert_twice)


def make_table(session: Session) -> None:
    session.execute(
        text("CREATE TABLE mine (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    )


def insert_twice(session: Session) -> None:
    session.execute(text("INSERT INTO mine VALUES (1)"))
    session.execute(text("INSERT INTO mine VALUES (1)"))
