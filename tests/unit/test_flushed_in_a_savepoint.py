"""Changes of a session that are flushed inside a savepoint of its connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from support.flavours import EVERY, Flavour, Observer, only
from support.models import Item, add_item, names
from unitwork import UnexpectedRollbackError

pytestmark = [pytest.mark.anyio, only(*EVERY)]


def add(session: Session) -> None:
    session.add(Item(name="new"))


def change(session: Session) -> None:
    session.scalars(select(Item)).one().name = "new"


def delete(session: Session) -> None:
    session.delete(session.scalars(select(Item)).one())


def roll_back(session: Session, inside: Callable[[Session], Any]) -> None:
    with suppress(LookupError), session.connection().begin_nested():
        inside(session)
        raise LookupError


@pytest.mark.parametrize("work", [add, change, delete])
async def test_are_lost_if_that_is_rolled_back(
    flavour: Flavour, observer: Observer, work: Callable[[Session], None]
) -> None:
    def body(session: Session) -> None:
        work(session)
        roll_back(session, names)  # which flushes

    await flavour.work(lambda session: add_item(session).id)
    with pytest.raises(UnexpectedRollbackError, match="flushed inside of it"):
        await flavour.work(body)

    assert observer.names() == ["one"]


@pytest.mark.parametrize("is_flushed", [True, False])
async def test_are_stored_if_they_were_flushed_before_or_are_later(
    flavour: Flavour, observer: Observer, is_flushed: bool
) -> None:
    def body(session: Session) -> None:
        add(session)
        if is_flushed:
            session.flush()
        roll_back(session, lambda session: None)

    await flavour.work(body)

    assert observer.names() == ["new"]


async def test_are_stored_if_that_is_released(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add(session)
        with session.connection().begin_nested():
            names(session)

    await flavour.work(body)

    assert observer.names() == ["new"]
