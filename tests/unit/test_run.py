"""`db.run()`: work outside requests, tried again as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from support.conflicts import Conflict, Race
from support.flavours import (
    FEW,
    POSTGRESQL,
    SERVERS,
    Flavour,
    Observer,
    everywhere,
    only,
)
from support.models import add_item
from support.runs import Failing, run
from unitwork import (
    CommitUnknownError,
    DatabaseSettings,
    Outcome,
    Retry,
    RetryPolicy,
    current_unit,
)
from unitwork.testing import CommitFault, commit_faults

pytestmark = pytest.mark.anyio

BOTH_WAYS = pytest.mark.parametrize("fault", list(CommitFault))


# What it does


@everywhere
async def test_it_commits_and_gives_the_result(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session, first: str, second: str) -> str:
        return add_item(session, first + second).name

    assert await run(flavour, body, "on", "e") == "one"
    assert observer.names() == ["one"]


@only(*SERVERS)
async def test_a_race_that_was_lost_is_run_again(
    flavour: Flavour, observer: Observer
) -> None:
    race = Race(flavour)
    await race.prepare()

    assert await run(flavour, race.run, attempts=3, **race.level) == 10
    assert (race.attempts, observer.names()) == ([1, 2], ["11"])


@everywhere
async def test_so_is_a_commit_that_was_refused(
    flavour: Flavour, observer: Observer
) -> None:
    body = Failing(0)

    with commit_faults(flavour.db, Conflict(), Conflict()):
        assert await run(flavour, body, attempts=3) == 3

    assert body.calls == [(1, False), (2, False), (3, True)]
    assert observer.names() == ["attempt 3"]


@FEW
async def test_each_attempt_has_a_unit_of_its_own(flavour: Flavour) -> None:
    body = Failing(1)

    await run(flavour, body, attempts=2)

    outcomes = [unit.outcome for unit in body.units]
    assert outcomes == [Outcome.ROLLED_BACK, Outcome.COMMITTED]


@FEW
async def test_once_is_enough_unless_somebody_asks(flavour: Flavour) -> None:
    body = Failing(1)

    with pytest.raises(Conflict):
        await run(flavour, body)

    assert body.calls == [(1, True)]


@FEW
async def test_the_last_failure_is_raised_with_a_note(
    flavour: Flavour, observer: Observer
) -> None:
    with pytest.raises(Conflict, match="3") as caught:
        await run(flavour, Failing(9), attempts=3)

    assert caught.value.__notes__ == ["unitwork: this was attempt 3 of 3"]
    assert observer.names() == []


@FEW
async def test_what_would_fail_again_is_raised_at_once(flavour: Flavour) -> None:
    body = Failing(9, KeyError)

    with pytest.raises(KeyError) as caught:
        await run(flavour, body, attempts=3)

    assert len(body.calls) == 1
    assert not hasattr(caught.value, "__notes__")


@only(*POSTGRESQL)
async def test_it_begins_as_it_was_asked_to_each_time(flavour: Flavour) -> None:
    levels: list[Any] = []

    def body(session: Session) -> None:
        levels.append(session.scalar(text("SHOW transaction_isolation")))
        if len(levels) < 3:
            raise Conflict

    await run(flavour, body, attempts=3, isolation_level="SERIALIZABLE")

    assert levels == ["serializable"] * 3


@FEW
async def test_hooks_are_those_of_their_attempt(flavour: Flavour) -> None:
    done: list[str] = []
    failing = Failing(1)

    def body(session: Session) -> None:
        number = len(failing.calls) + 1
        current_unit().on_commit(done.append, f"{number} committed")
        current_unit().on_rollback(done.append, f"{number} rolled back")
        failing(session)

    await run(flavour, body, attempts=2)

    assert done == ["1 rolled back", "2 committed"]


@FEW
async def test_before_retry_is_told(flavour: Flavour) -> None:
    reported: list[Retry] = []
    policy = RetryPolicy(longest_wait=0, before_retry=reported.append)

    await run(flavour, Failing(2), attempts=5, retry=policy)

    assert [(each.attempt, each.attempts, each.path) for each in reported] == [
        (1, 5, ""),
        (2, 5, ""),
    ]
    assert [str(each.error) for each in reported] == ["1", "2"]


@FEW
async def test_no_attempt_begins_after_it_was_given_up(flavour: Flavour) -> None:
    body = Failing(1)
    policy = RetryPolicy(first_wait=60, longest_wait=60, give_up_after=0)

    with pytest.raises(Conflict):
        await run(flavour, body, attempts=3, retry=policy)

    assert len(body.calls) == 1


# What is never run a second time


@everywhere
@BOTH_WAYS
async def test_an_unknown_outcome(
    flavour: Flavour, observer: Observer, fault: CommitFault
) -> None:
    unsure = flavour.another(settings=DatabaseSettings(verify_commit=False))
    body = Failing(0)

    with pytest.raises(CommitUnknownError), commit_faults(unsure.db, fault):
        await run(unsure, body, attempts=3)
    await unsure.dispose()

    assert len(body.calls) == 1
    assert len(observer.names()) == (fault is CommitFault.COMMITTED)


@only(*POSTGRESQL)
@BOTH_WAYS
async def test_but_one_that_the_database_knows(
    flavour: Flavour, observer: Observer, fault: CommitFault
) -> None:
    body = Failing(0)

    with commit_faults(flavour.db, fault):
        assert await run(flavour, body, attempts=3) == len(body.calls)

    assert len(body.calls) == (2 if fault is CommitFault.ROLLED_BACK else 1)
    assert len(observer.names()) == 1


class CommitsByHand(Failing):
    def __call__(self, session: Session) -> None:
        super().__call__(session)
        session.commit()


@FEW
@BOTH_WAYS
async def test_a_commit_by_hand_in_doubt(flavour: Flavour, fault: CommitFault) -> None:
    unsure = flavour.another(settings=DatabaseSettings(verify_commit=False))
    body = CommitsByHand(0)

    with pytest.raises(CommitUnknownError), commit_faults(unsure.db, fault):
        await run(unsure, body, attempts=3)
    await unsure.dispose()

    assert len(body.calls) == 1


@only(*POSTGRESQL)
@BOTH_WAYS
async def test_but_a_commit_by_hand_that_the_database_knows(
    flavour: Flavour, observer: Observer, fault: CommitFault
) -> None:
    body = CommitsByHand(0)

    with commit_faults(flavour.db, fault):
        await run(flavour, body, attempts=3)

    assert len(body.calls) == (2 if fault is CommitFault.ROLLED_BACK else 1)
    assert len(observer.names()) == 1


@FEW
@pytest.mark.parametrize("by_hand", [True, False])
async def test_what_is_done(flavour: Flavour, by_hand: bool) -> None:
    calls: list[int] = []

    def body(session: Session) -> None:
        calls.append(1)
        add_item(session)
        if by_hand:
            session.commit()
        else:
            current_unit().side_effect_done()
        raise Conflict

    with pytest.raises(Conflict):
        await run(flavour, body, attempts=3)

    assert calls == [1]


@FEW
async def test_an_engine_that_commits_each_statement(
    flavour: Flavour, observer: Observer
) -> None:
    loose = flavour.another(isolation_level="AUTOCOMMIT")
    body = Failing(1)

    with pytest.raises(Conflict):
        await run(loose, body, attempts=3)
    await loose.dispose()

    assert observer.names() == ["attempt 1"]
