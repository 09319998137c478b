"""The sync copy of the items application says what the async one says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
IN_SYNC = {
    r"\basync (?!def lifespan\b)": "",  # ASGI's own, in both
    r"\bawait ": "",
    r"\bAsync(Session|Database)\b": r"\1",
    r"\bsqlalchemy\.ext\.asyncio\b": "sqlalchemy.orm",
    r"\bsqlite\+aiosqlite\b": "sqlite",
    r"\bconnection\.run_sync\((.*)\)": r"\1(connection)",
    r"(?m)^from \.(models|schemas|errors) ": r"from ..items.\1 ",  # shared
}


def lines(source: str) -> list[str]:
    """The statements, imports first and in order; layout and comments don't count."""
    found = ast.unparse(ast.parse(source)).splitlines()
    imports = sorted(line for line in found if line.startswith(("from ", "import ")))
    return imports + [line for line in found if line not in imports]


def test_shares_all_that_has_no_flavour() -> None:
    kept = {path.name for path in (EXAMPLES / "items_sync").glob("*.py")}

    assert kept == {"__init__.py", "app.py", "database.py", "routes.py"}


@pytest.mark.parametrize("name", ["app.py", "database.py", "routes.py"])
def test_differs_in_await_and_in_drivers_only(name: str) -> None:
    source = (EXAMPLES / "items" / name).read_text(encoding="utf-8")
    for pattern, replacement in IN_SYNC.items():
        source = re.sub(pattern, replacement, source)

    copy = (EXAMPLES / "items_sync" / name).read_text(encoding="utf-8")
    assert lines(copy) == lines(source)
