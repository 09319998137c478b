"""Names of unitwork that the pages mention in passing exist, with these arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from support.manual import PAGES, ROOT
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    RetryPolicy,
    TransactionOptions,
    UnitOfWork,
)

OURS = [page for page in PAGES if page.parent.name != "migrating"]
"""Pages whose `db` and `unit` are unitwork's, and no other library's."""
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
OTHERS = r"(?!client\.connection\.|response\.status_code)"
"""Names of metrics and of attributes of spans begin with `db.`, too."""
ATTRIBUTES = {
    rf"\bdb\.{OTHERS}(\w+)": dir(Database),
    r"\bAsyncDatabase\.(\w+)": dir(AsyncDatabase),
    r"(?<!unitwork\.)\b(?:unit|current_unit\(\))\.(\w+)": dir(UnitOfWork),
}
ARGUMENTS = {
    "DBSessionMiddleware": DBSessionMiddleware,
    "DatabaseSettings": DatabaseSettings,
    "RetryPolicy": RetryPolicy,
    "TransactionOptions": TransactionOptions,
    "transactional": TransactionOptions,
    "transaction_options": TransactionOptions,
}
MOST_SPECIFIC = sorted(ARGUMENTS, key=len, reverse=True)
CALL = re.compile(rf"\b({'|'.join(MOST_SPECIFIC)})\(([^)]*)")


def unknown_names(code: str) -> Iterable[str]:
    """Yield what unitwork does not have of the names in a piece of *code*."""
    for pattern, known in ATTRIBUTES.items():
        yield from (name for name in re.findall(pattern, code) if name not in known)
    for called, arguments in CALL.findall(code):
        known = inspect.signature(ARGUMENTS[called]).parameters
        given = re.findall(r"(\w+)=(?!=)", arguments)
        yield from (f"{called}({name}=)" for name in given if name not in known)


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_what_exists(path: Path) -> None:
    codes = CODE.findall(path.read_text(encoding="utf-8"))

    assert [name for code in codes for name in unknown_names(code)] == []


@pytest.mark.parametrize(
    "code", ["db.sesion", "unit.on_comit(f)", "DatabaseSettings(end_time=2)"]
)
def test_finds_what_does_not_exist(code: str) -> None:
    assert list(unknown_names(code))
