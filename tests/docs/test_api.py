"""The reference lists every public name, and the built site shows its docstring."""

from __future__ import annotations

import re
from types import ModuleType

import pytest

import unitwork
import unitwork.events
import unitwork.fastapi
import unitwork.inspector
import unitwork.replicas
import unitwork.telemetry
import unitwork.testing
from support.manual import ROOT
from support.page_tables import code_in, rows

DOORS = [
    unitwork,
    unitwork.events,
    unitwork.fastapi,
    unitwork.inspector,
    unitwork.replicas,
    unitwork.telemetry,
    unitwork.testing,
]
TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
DOCSTRINGS = (ROOT / "docs" / "_site" / "api.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_lists_each_public_name(door: ModuleType) -> None:
    section = TEXT.partition(f"## `{door.__name__}`\n")[2].partition("\n## ")[0]

    listed = [name for row in rows(section, "Name") for name in code_in(row[0])]
    assert sorted(listed) == sorted(door.__all__)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_the_site_shows_the_docstring_of_each_public_name(door: ModuleType) -> None:
    shown = set(re.findall(r"(?m)^\.\. \w+:: (\w+)", DOCSTRINGS))

    assert set(door.__all__) <= shown
