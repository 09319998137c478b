"""Context managers of the test kit that are used in a way that does nothing."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from support.flavours import Flavour, only
from unitwork import UsageError
from unitwork.testing import (
    CommitFault,
    SandboxError,
    assert_committed,
    assert_no_database,
    assert_queries,
    assert_rolled_back,
    capture_on_commit,
    commit_faults,
    detect_outside_calls,
    no_waits,
    sandbox,
)

pytestmark = pytest.mark.anyio

CALLS: dict[str, Callable[[Any], object]] = {
    "assert_committed": assert_committed,
    "assert_rolled_back": lambda db: assert_rolled_back("status 409", db),
    "assert_queries": lambda db: assert_queries(2, db),
    "assert_no_database": assert_no_database,
    "capture_on_commit": capture_on_commit,
    "commit_faults": lambda db: commit_faults(db, CommitFault.COMMITTED),
    "detect_outside_calls": lambda db: detect_outside_calls(),
    "no_waits": lambda db: no_waits(),
    "sandbox": sandbox,
}


@only("sqlite3")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_with_fails_the_test(flavour: Flavour, name: str) -> None:
    with (
        pytest.raises(SandboxError, match=rf"{name}\(\) does nothing without `with`"),
        sandbox(flavour.db),
    ):
        CALLS[name](flavour.db)


@only("sqlite3")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_without_with_warns_outside_of_sandboxes(
    flavour: Flavour, name: str
) -> None:
    with pytest.warns(RuntimeWarning, match=rf"{name}\(\) does nothing"):
        CALLS[name](flavour.db)


@only("sqlite3")
def test_the_block_of_an_error_is_no_misuse(flavour: Flavour) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(LookupError), assert_committed(flavour.db):
            raise LookupError


@only("aiosqlite")
async def test_an_assertion_decorates_a_coroutine_function(flavour: Flavour) -> None:
    @assert_no_database()
    async def use() -> None:
        async with flavour.db.engine.connect():
            pass

    with pytest.raises(AssertionError, match="a connection was taken"):
        await use()


@only("sqlite3")
def test_an_assertion_decorates_a_function(flavour: Flavour) -> None:
    @assert_committed()
    def use_nothing() -> None: ...

    for _ in range(2):
        with pytest.raises(AssertionError, match="no unit of work was committed"):
            use_nothing()


@only("sqlite3")
@pytest.mark.parametrize("name", ["session", "headers", "allow"])
def test_a_sandbox_without_with_says_what_to_write(flavour: Flavour, name: str) -> None:
    opening: Any = sandbox(flavour.db)
    with pytest.raises(UsageError, match=r"write `with sandbox\(db\) as box:`"):
        getattr(opening, name)
    assert not hasattr(opening, "no_such_thing")
    with opening:
        pass


def test_its_error_is_found_where_it_is_imported_from() -> None:
    assert SandboxError.__module__ == "unitwork.testing"
    assert isinstance(pickle.loads(pickle.dumps(SandboxError("x"))), SandboxError)
