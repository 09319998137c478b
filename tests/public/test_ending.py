"""The judgement of a unit, without any unit: what it asks for, then the policy."""

from __future__ import annotations

import dataclasses

import pytest

from unitwork import Ending, Outcome, succeeded
from unitwork._unit.judging import judge_response
from unitwork._unit.owner import UnitOwner
from unitwork._unit.unit import Unit
from unitwork.outcome import judge


def never(ending: Ending) -> bool:
    return False


def always(ending: Ending) -> bool:
    return True


def unasked(ending: Ending) -> bool:
    raise AssertionError("the policy was asked")


OK = Ending(status=200)
CONFLICT = Ending(status=409)
RAISED = Ending(status=200, exception=LookupError("x"))


@pytest.mark.parametrize("status", [100, 200, 204, 304, 399])
def test_a_status_below_400_is_a_success(status: int) -> None:
    assert succeeded(Ending(status=status))


@pytest.mark.parametrize("status", [400, 404, 499, 500, 503, 599])
def test_a_status_of_400_and_above_is_none(status: int) -> None:
    assert not succeeded(Ending(status=status))


@pytest.mark.parametrize("status", [200, 303, 500])
def test_an_exception_is_none_whatever_the_status(status: int) -> None:
    assert not succeeded(Ending(status=status, exception=LookupError()))


@pytest.mark.parametrize(
    ("ending", "commit", "reason"),
    [
        (OK, True, "status 200"),
        (CONFLICT, False, "status 409"),
        (RAISED, False, "LookupError was raised"),
    ],
)
def test_the_policy_decides_and_the_reason_says_what_it_saw(
    ending: Ending, commit: bool, reason: str
) -> None:
    assert judge(ending, succeeded) == (commit, reason)


@pytest.mark.parametrize("ending", [OK, CONFLICT, RAISED])
def test_a_policy_may_decide_otherwise(ending: Ending) -> None:
    assert judge(ending, always).commit
    assert not judge(ending, never).commit


@pytest.mark.parametrize("ending", [OK, CONFLICT, RAISED])
@pytest.mark.parametrize("commit_anyway", [True, False])
def test_a_rollback_that_was_asked_for_comes_before_all_else(
    ending: Ending, commit_anyway: bool
) -> None:
    unit = Unit({}, UnitOwner())
    if commit_anyway:
        unit.request_commit()
    unit.request_rollback("dry run")

    assert judge_response(unit, ending, unasked) == (False, "dry run")


@pytest.mark.parametrize("ending", [OK, CONFLICT, RAISED])
def test_commit_anyway_comes_before_the_policy(ending: Ending) -> None:
    unit = Unit({}, UnitOwner())
    unit.request_commit()

    assert judge_response(unit, ending, unasked) == (True, "commit_anyway()")


def test_commit_anyway_is_decided_although_the_work_is_lost() -> None:
    unit = Unit({}, UnitOwner())
    unit.request_commit()
    unit.lose(LookupError())

    assert judge_response(unit, CONFLICT, unasked).commit  # so that it fails


def test_an_empty_reason_asks_for_a_rollback_all_the_same() -> None:
    unit = Unit({}, UnitOwner())
    unit.request_rollback("")

    assert judge_response(unit, OK, unasked) == (False, "")


def test_an_ending_is_frozen_and_takes_keywords_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OK.status = 500  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        Ending(200)  # type: ignore[misc]  # that is the point


def test_outcomes_read_as_a_sentence_goes_on() -> None:
    assert [outcome.value for outcome in Outcome] == [
        "committed",
        "rolled back",
        "unknown",
        "partial",
        "empty",
    ]
