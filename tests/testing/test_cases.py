"""The lists of other kits' cases name tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("kit", ["django", "ecto"])
def test_each_case_has_its_test(kit: str) -> None:
    own = (HERE / f"test_cases_of_{kit}.py").read_text()
    cases = ast.get_docstring(ast.parse(own)) or ""
    named = set(re.findall(r"\btest_\w+\b(?!\.py|\))", cases))
    hooks = (HERE / "test_captured_hooks.py").read_text()

    assert named <= set(re.findall(r"def (test_\w+)", own + hooks))
