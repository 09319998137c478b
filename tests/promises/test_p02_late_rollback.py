"""P2: a rollback that is requested just before COMMIT counts, too."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, everywhere
from support.models import Item, add_item
from support.swallowing import post_noting_unit
from unitwork import Outcome, UsageError, current_unit

pytestmark = pytest.mark.anyio


@everywhere
async def test_by_a_listener_to_the_commit_of_the_session(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        unit = current_unit()
        event.listen(session, "before_commit", lambda _: unit.rollback_only("no"))

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, reply.error) == (200, None)
    assert (unit.outcome, unit.reason) == (Outcome.ROLLED_BACK, "no")
    assert observer.names() == []


@everywhere
async def test_by_a_listener_to_the_last_of_several_flushes(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        unit = current_unit()
        steps = iter([lambda: session.add(Item(name="two")), unit.rollback_only])

        def listener(*args: Any) -> None:
            next(steps)()

        event.listen(session, "after_flush_postexec", listener)
        session.add(Item(name="one"))

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, unit.outcome) == (200, Outcome.ROLLED_BACK)
    assert observer.names() == []


@everywhere
async def test_a_hook_that_could_not_be_called_any_more_is_refused(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        unit = current_unit()
        event.listen(session, "before_commit", lambda _: unit.before_commit(str))

    reply, _ = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UsageError)
    assert observer.names() == []


@everywhere
async def test_the_application_commits_nothing_after_it(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session)
        current_unit().rollback_only("dry run")
        session.commit()

    reply, unit = await post_noting_unit(flavour, body)

    assert isinstance(reply.error, UsageError)
    assert "dry run" in str(reply.error)
    assert unit.outcome is Outcome.ROLLED_BACK
    assert observer.names() == []
