"""A two-phase commit in events: each database has one COMMIT, and its own time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.orm import Session

from support.exported import Exported
from support.models import add_orphan
from support.pairs import COMMIT, PREPARE, Pair
from support.recording import Recorder
from support.twophase import ALL, SOME, add, only_pairs
from unitwork import Outcome
from unitwork.events import (
    CommitAnswered,
    CommitSent,
    OutcomeVerified,
    StatementExecuted,
    UnitEnded,
)
from unitwork.telemetry import instrument

pytestmark = [pytest.mark.anyio, only_pairs(*SOME)]


@pytest.fixture
def recorder(pair: Pair) -> Iterator[Recorder]:
    recorder = Recorder()
    stops = [db.observe(recorder) for db in pair.databases]
    yield recorder
    for stop in stops:
        stop()


def answers(recorder: Recorder) -> list[tuple[str, str]]:
    """The databases whose COMMIT was answered, and with which error."""
    return [
        (each.database, "" if each.error is None else type(each.error).__name__)
        for each in recorder.of(CommitAnswered)
    ]


async def test_each_database_has_one_commit(pair: Pair, recorder: Recorder) -> None:
    await pair.post(add, add)

    assert [each.database for each in recorder.of(CommitSent)] == ["first", "second"]
    assert answers(recorder) == [("first", ""), ("second", "")]
    assert recorder.one(UnitEnded).outcome is Outcome.COMMITTED


async def test_their_time_is_that_of_both_phases_and_none_is_counted_twice(
    pair: Pair, recorder: Recorder
) -> None:
    await pair.post(add, add)

    first, second = recorder.of(CommitAnswered)
    sent = recorder.of(CommitSent)[0]
    assert 0 < first.duration + second.duration <= second.at - sent.at


async def test_the_statements_of_both_phases_are_not_the_applications(
    pair: Pair, recorder: Recorder
) -> None:
    await pair.post(add, add)

    assert len(recorder.of(StatementExecuted)) == 2


async def test_a_prepare_that_fails_is_the_answer_of_all(
    pair: Pair, recorder: Recorder
) -> None:
    pair.second.trap(PREPARE, lambda line: line.cut(), on_answer=False)

    await pair.post(add, add)

    found = dict(answers(recorder))
    assert len(recorder.of(CommitSent)) == len(recorder.of(CommitAnswered)) == 2
    assert set(found) == {"first", "second"}
    assert "" not in found.values()
    assert recorder.one(OutcomeVerified).committed is False


async def test_a_commit_whose_answer_is_lost_is_verified(
    pair: Pair, recorder: Recorder
) -> None:
    pair.second.trap(COMMIT, lambda line: line.cut(), on_answer=True)

    await pair.post(add, add)

    (first, ok), (second, lost) = answers(recorder)
    assert (first, ok, second) == ("first", "", "second")
    assert lost
    assert recorder.one(OutcomeVerified).committed
    assert pair.seen() == ALL


async def test_a_unit_of_one_database_has_one_commit(
    pair: Pair, recorder: Recorder
) -> None:
    await pair.post(add, None)

    assert answers(recorder) == [("first", "")]
    assert recorder.one(CommitAnswered).duration > 0
    assert len(recorder.of(StatementExecuted)) == 1


async def test_what_fails_before_the_first_phase_has_no_commit(
    pair: Pair, recorder: Recorder
) -> None:
    await pair.post(add, add_orphan_now)

    assert not recorder.of(CommitSent)
    assert not recorder.of(CommitAnswered)


def add_orphan_now(session: Session) -> None:
    add_orphan(session)
    session.flush()
    raise LookupError


async def test_metrics_count_each_commit_once(pair: Pair) -> None:
    exported = Exported()
    stop: Any = instrument(*pair.databases, **exported.providers)
    await pair.post(add, add)
    stop()

    assert exported.total("unitwork.commit.duration") == 2
    exported.shutdown()
