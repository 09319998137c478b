"""Each public name is used in tests/typing/, which `make lint` has checked twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import unitwork
import unitwork.fastapi
import unitwork.testing

FILES = Path(__file__).parents[1].joinpath("typing").glob("*.py")
WORDS = {word for path in FILES for word in re.findall(r"\w+", path.read_text("utf-8"))}


@pytest.mark.parametrize(
    "name",
    [*unitwork.__all__, *unitwork.fastapi.__all__, *unitwork.testing.__all__],
)
def test_is_type_checked(name: str) -> None:
    assert name in WORDS


@pytest.mark.parametrize(
    "kind", [unitwork.Database, unitwork.AsyncDatabase, unitwork.UnitOfWork]
)
def test_is_type_checked_with_all_its_attributes(kind: type) -> None:
    public = {name for name in dir(kind) if not name.startswith("_")}

    assert public <= WORDS
