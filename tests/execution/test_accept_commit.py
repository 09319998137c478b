"""A COMMIT that is known to have succeeded stands, whatever fails after it."""

from __future__ import annotations

import logging

import pytest

from support.play import Play
from unitwork import UsageError
from unitwork._execution.accepted_commit import accept_commit


def test_a_session_that_can_not_be_ended_was_committed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = Play()
    plan = accept_commit(play.session("a"))
    next(plan)

    with pytest.raises(StopIteration):
        plan.throw(UsageError("another task still uses the session"))

    assert play.steps == ["abort a"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
