"""The 21 cases in which Django tries its `transaction.on_commit()`, tried on ours.

A unit is what `atomic()` is there, and `begin_nested()` what it is inside another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer
from support.models import add_item, names
from unitwork import (
    MissingSessionError,
    UnexpectedRollbackError,
    UsageError,
    current_unit,
)

pytestmark = pytest.mark.anyio


class OurError(Exception):
    pass


@dataclass
class Deeds:
    """What was stored, and what was announced of it: the two must agree."""

    flavour: Flavour
    observer: Observer
    announced: list[str] = field(default_factory=list)

    def do(self, session: Session, number: int) -> None:
        add_item(session, str(number))
        current_unit().on_commit(self.announced.append, str(number))

    def do_in_savepoint(self, session: Session, number: int) -> None:
        with session.begin_nested():
            self.do(session, number)

    def do_and_fail(self, session: Session, number: int) -> None:
        self.do(session, number)
        raise OurError

    async def unit(self, body: Callable[[Session], Any]) -> None:
        await self.flavour.work(body)

    def hook(self, body: Callable[[Session], Any]) -> Callable[[], Any]:
        """A hook that runs *body* in a unit of its own."""
        if self.flavour.is_async:
            return partial(self.flavour.work, body)

        def hook() -> None:
            with self.flavour.db.transaction() as session:
                body(session)

        return hook

    def check(self, *numbers: int) -> None:
        assert self.announced == [str(number) for number in numbers]
        assert sorted(self.observer.names()) == sorted(self.announced)


@pytest.fixture
def deeds(flavour: Flavour, observer: Observer) -> Deeds:
    return Deeds(flavour, observer)


def fail() -> None:
    raise OurError("the hook")


# Without a transaction


async def test_01_is_refused_where_there_is_no_unit(deeds: Deeds) -> None:
    # There it is called at once. Here it waits for a unit, and there is none.
    with pytest.raises(MissingSessionError, match="no unit of work here"):
        current_unit().on_commit(deeds.announced.append, "1")

    deeds.check()


async def test_02_that_fails_without_a_transaction_is_logged(
    deeds: Deeds, caplog: pytest.LogCaptureFixture
) -> None:
    # There only with `robust=True`. Here always: what is committed can't fail any more.
    def body(session: Session) -> None:
        current_unit().on_commit(fail)

    await deeds.unit(body)
    await deeds.unit(lambda session: deeds.do(session, 1))

    deeds.check(1)
    check_logged(caplog)


async def test_03_that_fails_after_a_transaction_is_logged(
    deeds: Deeds, caplog: pytest.LogCaptureFixture
) -> None:
    # As before: there only with `robust=True`.
    def body(session: Session) -> None:
        current_unit().on_commit(fail)
        deeds.do(session, 1)

    await deeds.unit(body)

    deeds.check(1)
    check_logged(caplog)


def check_logged(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = (record for record in caplog.records if record.name == "unitwork")
    assert "fail failed" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OurError)


# When it is called


async def test_04_is_called_after_commit_and_not_before(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        deeds.do(session, 1)
        deeds.check()

    await deeds.unit(body)

    deeds.check(1)


async def test_05_is_not_called_after_a_rollback(deeds: Deeds) -> None:
    with pytest.raises(OurError):
        await deeds.unit(lambda session: deeds.do_and_fail(session, 1))

    deeds.check()


async def test_06_is_called_after_the_outermost_commit_only(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            deeds.do(session, 1)
            assert deeds.announced == []
        assert deeds.announced == []

    await deeds.unit(body)

    deeds.check(1)


# Savepoints


async def test_07_is_dropped_with_its_savepoint(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        deeds.do_in_savepoint(session, 1)
        with suppress(OurError), session.begin_nested():
            deeds.do_and_fail(session, 2)
        deeds.do_in_savepoint(session, 3)

    await deeds.unit(body)

    deeds.check(1, 3)


async def test_08_is_not_called_if_the_outermost_fails(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        deeds.do_in_savepoint(session, 1)
        raise OurError

    with pytest.raises(OurError):
        await deeds.unit(body)

    deeds.check()


async def test_09_is_dropped_with_a_savepoint_around_its_own(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        with suppress(OurError), session.begin_nested():
            deeds.do_in_savepoint(session, 1)
            raise OurError
        deeds.do(session, 2)

    await deeds.unit(body)

    deeds.check(2)


async def test_10_is_dropped_if_a_block_that_joins_has_failed(deeds: Deeds) -> None:
    # There in silence. Here the block that swallows the failure gets an error.
    flavour = deeds.flavour

    def failing(session: Session) -> None:
        raise OurError

    async def unit() -> None:
        async with flavour.block() as session:
            await flavour.do(session, lambda s: deeds.do_in_savepoint(s, 1))
            with suppress(OurError):
                await flavour.work(failing, nested="join")

    with pytest.raises(UnexpectedRollbackError) as caught:
        await unit()

    assert isinstance(caught.value.__cause__, OurError)
    deeds.check()


async def test_11_outlives_a_savepoint_inside_its_own(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        with session.begin_nested():
            deeds.do(session, 1)
            with suppress(OurError), session.begin_nested():
                raise OurError

    await deeds.unit(body)

    deeds.check(1)


# Order, and once only


async def test_12_are_called_in_the_order_of_their_registration(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        deeds.do(session, 1)
        deeds.do_in_savepoint(session, 2)
        deeds.do(session, 3)

    await deeds.unit(body)

    deeds.check(1, 2, 3)


async def test_13_is_not_called_again_by_the_next_unit(deeds: Deeds) -> None:
    await deeds.unit(lambda session: deeds.do(session, 1))
    await deeds.unit(lambda session: deeds.do(session, 2))

    deeds.check(1, 2)


async def test_14_that_was_dropped_is_not_called_by_the_next_unit(
    deeds: Deeds,
) -> None:
    with pytest.raises(OurError):
        await deeds.unit(lambda session: deeds.do_and_fail(session, 1))
    await deeds.unit(lambda session: deeds.do(session, 2))

    deeds.check(2)


async def test_15_is_dropped_with_the_connection(deeds: Deeds) -> None:
    # There in silence, once more: the block ends well, and nothing of it is stored.
    def body(session: Session) -> None:
        deeds.do(session, 1)
        session.connection().invalidate()

    with pytest.raises(UnexpectedRollbackError):
        await deeds.unit(body)
    await deeds.unit(lambda session: deeds.do(session, 2))

    deeds.check(2)


async def test_16_that_fails_is_not_called_again(
    deeds: Deeds, caplog: pytest.LogCaptureFixture
) -> None:
    # There it raises out of the block, and the hooks after it are lost.
    def body(session: Session) -> None:
        current_unit().on_commit(fail)

    await deeds.unit(body)
    await deeds.unit(lambda session: deeds.do(session, 1))

    deeds.check(1)
    check_logged(caplog)


# The database in a hook


async def test_17_may_ask_the_database(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        add_item(session, "1")
        ask = deeds.hook(lambda session: deeds.announced.extend(names(session)))
        current_unit().on_commit(ask)

    await deeds.unit(body)

    deeds.check(1)


async def test_18_may_write_in_a_unit_of_its_own(deeds: Deeds) -> None:
    write = deeds.hook(lambda session: deeds.do(session, 1))

    await deeds.unit(lambda session: current_unit().on_commit(write))

    deeds.check(1)


async def test_19_of_a_hooks_own_unit_comes_before_the_next_hook(deeds: Deeds) -> None:
    def write(session: Session, number: int, *, more: bool) -> None:
        if more:
            after = partial(write, number=number + 10, more=False)
            current_unit().on_commit(deeds.hook(after))
        add_item(session, str(number))
        deeds.announced.append(str(number))

    def body(session: Session) -> None:
        for number in (1, 2):
            hook = deeds.hook(partial(write, number=number, more=True))
            current_unit().on_commit(hook)

    await deeds.unit(body)

    deeds.check(1, 11, 2, 12)


# What there is an error


async def test_20_is_due_after_a_commit_by_hand(deeds: Deeds) -> None:
    # There it is refused while the user commits. Here that settles what came before it.
    def body(session: Session) -> None:
        deeds.do(session, 1)
        session.commit()
        deeds.do_and_fail(session, 2)

    with pytest.raises(OurError):
        await deeds.unit(body)

    deeds.check(1)


async def test_21_must_be_callable(deeds: Deeds) -> None:
    def body(session: Session) -> None:
        current_unit().on_commit(None)  # type: ignore[arg-type]  # that is the point

    with pytest.raises(UsageError, match="a hook must be callable, this is None"):
        await deeds.unit(body)
