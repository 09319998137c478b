"""P4: a flush that fails inside a savepoint, which SQLAlchemy then ends in silence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from support.flavours import ASYNC, Flavour, Observer, everywhere, only
from support.models import Item, add_item
from support.swallowing import post
from unitwork import UnexpectedRollbackError


def add_and_swallow(session: Session) -> None:
    add_item(session, "two")
    with suppress(IntegrityError):
        add_item(session, "two")


def add_later(session: Session, item: Item) -> None:
    session.add(Item(name="later"))


def change_later(session: Session, item: Item) -> None:
    item.name = "changed"


def delete_later(session: Session, item: Item) -> None:
    session.delete(item)


def _raise(kind: type[Exception] | None) -> None:
    if kind is not None:
        raise kind


@everywhere
@pytest.mark.parametrize("name", ["begin_nested", "begin"])
async def test_a_flush_error_swallowed_inside_a_block_is_no_success(
    flavour: Flavour, observer: Observer, name: str
) -> None:
    def body(session: Session) -> None:
        with getattr(session, name)():
            add_and_swallow(session)

    reply = await post(flavour, body)

    assert isinstance(reply.error, UnexpectedRollbackError)
    assert (reply.status, observer.names()) == (500, [])


@only(*ASYNC)  # a sync one would block the event loop
async def test_a_block_of_ours_in_a_savepoint_raises_as_well(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(UnexpectedRollbackError, match="around the block"):
        async with flavour.block(), flavour.block(nested="savepoint") as session:
            await flavour.do(session, add_and_swallow)

    assert observer.names() == []


@everywhere
async def test_what_a_savepoint_has_lost_can_be_handled_around_it(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with suppress(UnexpectedRollbackError), session.begin_nested():
            add_and_swallow(session)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
async def test_a_savepoint_rolled_back_by_hand_ends_in_peace(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        with session.begin_nested() as savepoint:
            with suppress(IntegrityError):
                add_and_swallow(session)
            savepoint.rollback()

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])


@everywhere
@pytest.mark.parametrize("change", [add_later, change_later, delete_later])
@pytest.mark.parametrize("raises", [LookupError, None])
async def test_what_is_changed_after_the_failed_flush_is_undone_with_it(
    flavour: Flavour,
    observer: Observer,
    change: Callable[[Session, Item], None],
    raises: type[Exception] | None,
) -> None:
    def body(session: Session) -> None:
        item = add_item(session)
        with suppress(LookupError, UnexpectedRollbackError), session.begin_nested():
            with suppress(IntegrityError):
                add_item(session)
            change(session, item)
            _raise(raises)

    reply = await post(flavour, body)

    assert (reply.status, observer.names()) == (200, ["one"])
