"""Hooks: with savepoints that were begun past the session they are dropped, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, everywhere
from support.hooking import OurError, on_commit
from support.models import add_item

pytestmark = [pytest.mark.anyio, everywhere]

Savepoint = Callable[[Session], AbstractContextManager[object]]


def by_connection(session: Session) -> AbstractContextManager[object]:
    return session.connection().begin_nested()


@contextmanager
def by_sql(session: Session) -> Iterator[None]:
    session.execute(text("SAVEPOINT ours"))
    try:
        yield
    except OurError:
        session.execute(text("ROLLBACK TO SAVEPOINT ours"))
        raise
    session.execute(text("RELEASE SAVEPOINT ours"))


@pytest.mark.parametrize("savepoint", [by_connection, by_sql])
async def test_those_inside_are_dropped_with_it(
    flavour: Flavour, observer: Observer, done: list[str], savepoint: Savepoint
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        on_commit(done.append, "before")
        with suppress(OurError), savepoint(session):
            on_commit(done.append, "inside")
            with session.begin_nested():
                on_commit(done.append, "inside of both")
                add_item(session, "two")
            raise OurError
        on_commit(done.append, "after")

    await flavour.work(body)

    assert (done, observer.names()) == (["before", "after"], ["one"])


async def test_sql_may_roll_back_to_one_again(
    flavour: Flavour, done: list[str]
) -> None:
    def body(session: Session) -> None:
        session.execute(text("SAVEPOINT ours"))
        for hook in ("first", "second"):
            on_commit(done.append, hook)
            session.execute(text("ROLLBACK TO ours"))
        on_commit(done.append, "third")

    await flavour.work(body)

    assert done == ["third"]


@pytest.mark.parametrize("savepoint", [by_connection, by_sql])
async def test_those_inside_are_called_if_it_is_released(
    flavour: Flavour, done: list[str], savepoint: Savepoint
) -> None:
    def body(session: Session) -> None:
        with savepoint(session):
            on_commit(done.append, "inside")
            add_item(session)
        with suppress(OurError), savepoint(session):
            raise OurError

    await flavour.work(body)

    assert done == ["inside"]
