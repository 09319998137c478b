"""Settings are checked when they are made, and the message names the key."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from unitwork import DatabaseSettings, UsageError

TIMES = ["end_timeout", "verify_timeout", "drain_timeout"]


def test_the_defaults_are_fit_for_use() -> None:
    settings = DatabaseSettings()

    assert settings.verify_commit is True
    assert (settings.end_timeout, settings.drain_timeout) == (5, 10)
    assert (settings.check_at_startup, settings.sqlite_defaults) == (False, True)


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize("value", [0.001, 1, 3600.5, float("inf")])
def test_a_time_is_any_positive_number_of_seconds(key: str, value: float) -> None:
    assert getattr(DatabaseSettings(**{key: value}), key) == value


@pytest.mark.parametrize("key", TIMES)
@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", b"5", [5], object])
def test_a_time_that_is_none_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{key} is .*; give seconds, more than 0"):
        DatabaseSettings(**{key: value})


def test_only_the_limit_of_commit_can_be_switched_off() -> None:
    assert DatabaseSettings(commit_timeout=None).commit_timeout is None
    for key in ("end_timeout", "drain_timeout"):
        with pytest.raises(UsageError, match=f"{key} is None"):
            DatabaseSettings(**{key: None})


def test_settings_are_frozen_compared_by_value_and_take_keywords_only() -> None:
    settings = DatabaseSettings(end_timeout=1)

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.end_timeout = 2  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        DatabaseSettings(30.0)  # type: ignore[misc]  # that is the point
    assert settings == DatabaseSettings(end_timeout=1.0)
    assert dataclasses.replace(settings, drain_timeout=3).end_timeout == 1


def test_a_change_is_checked_as_well() -> None:
    with pytest.raises(UsageError, match="end_timeout"):
        dataclasses.replace(DatabaseSettings(), end_timeout=-1)
