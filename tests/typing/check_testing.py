"""What mypy and pyright know of the test kit; never run."""

from collections.abc import Callable
from typing import assert_type

from unitwork import AsyncDatabase, Database
from unitwork.testing import (
    assert_committed,
    assert_no_database,
    assert_queries,
    assert_rolled_back,
    capture_on_commit,
    detect_outside_calls,
)

db = Database("sqlite://")
async_db = AsyncDatabase("sqlite+aiosqlite://")

with assert_committed() as nothing, assert_committed(db, async_db):
    assert_type(nothing, None)
with assert_rolled_back(), assert_rolled_back("status 409", db):
    pass
with assert_queries(2), assert_queries(2, async_db), assert_no_database(db):
    pass
with capture_on_commit() as hooks, capture_on_commit(db, execute=True):
    assert_type(hooks, list[Callable[[], object]])

with detect_outside_calls("warn", baseline="known.txt", ignore=["redis"]) as found:
    assert_type(found, list[str])
detect_outside_calls("log")  # type: ignore[arg-type]
assert_queries("2")  # type: ignore[arg-type]
assert_rolled_back(db)  # type: ignore[arg-type]
capture_on_commit("sqlite://")  # type: ignore[arg-type]
