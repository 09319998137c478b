"""The cases of Django's `on_commit()` (tests/transaction_hooks), in a sandbox.

Django needs its slower TransactionTestCase for them. `atomic()` is `transaction()`, and
a savepoint inside a unit; `atomic(savepoint=False)` is `nested="join"`.

- executes_immediately_if_no_transaction
    test_a_hook_without_a_transaction_runs_at_the_end_of_its_unit
- robust_if_no_transaction (also as partial), robust_transaction (also as partial)
    test_a_hook_that_fails_is_logged: all are robust here
- delays_execution_until_after_transaction_commit
    test_a_hook_waits_for_the_commit
- does_not_execute_if_transaction_rolled_back
    test_no_hook_runs_after_a_rollback
- executes_only_after_final_transaction_committed
    test_a_hook_of_a_savepoint_waits_for_the_commit
- discards_hooks_from_rolled_back_savepoint
    test_hooks_of_a_savepoint_that_is_rolled_back_are_discarded
- no_hooks_run_from_failed_transaction
    test_no_hook_of_a_savepoint_runs_after_a_rollback
- inner_savepoint_rolled_back_with_outer
    test_an_inner_savepoint_is_rolled_back_with_the_outer_one
- no_savepoints_atomic_merged_with_outer
    test_a_joined_block_that_fails_rolls_back_the_outer_one
- inner_savepoint_does_not_affect_outer
    test_an_empty_savepoint_that_is_rolled_back_affects_nothing
- runs_hooks_in_order_registered
    test_hooks_run_in_order
- hooks_cleared_after_successful_commit
    test_hooks_run_once
- hooks_cleared_after_rollback
    test_hooks_of_a_rollback_do_not_run_later
- hooks_cleared_on_reconnect
    test_hooks_of_a_lost_connection_do_not_run
- error_in_hook_doesnt_prevent_clearing_hooks
    test_a_hook_that_fails_is_logged
- db_query_in_hook
    test_a_hook_may_query
- transaction_in_hook
    test_a_hook_may_have_a_transaction
- raises_exception_non_autocommit_mode
    test_a_hook_outside_of_a_unit_is_refused
- raises_exception_non_callable
    test_what_can_not_be_called_is_refused

The cases of `captureOnCommitCallbacks()` (tests/test_utils) are in
test_captured_hooks.py, but for pre_callback and execute_tree, which are here:

- no_arguments
    test_captures_and_does_not_call
- using, different_using
    test_only_of_the_databases_that_are_named
- execute
    test_calls_where_they_are_always_called
- with_rolled_back_savepoint
    test_nor_those_of_a_savepoint_that_is_undone
- execute_recursive
    test_those_that_a_hook_registers_are_captured_too
- execute_robust
    test_one_that_fails_is_captured
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.orm import Session

from support.flavours import Flavour, only
from support.models import add_item, names
from unitwork import Database, MissingSessionError, UsageError, current_unit
from unitwork.testing import capture_on_commit, sandbox

pytestmark = only("sqlite3", "psycopg")


class ForcedError(Exception):
    """Raised by the tests themselves."""


class Notified:
    """Items that are stored, and what their hooks have noted."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.hooks: list[int] = []

    def do(self, session: Session, number: int) -> None:
        """Store an item, and note it after COMMIT."""
        add_item(session, str(number))
        current_unit().on_commit(self.hooks.append, number)

    @property
    def done(self) -> tuple[list[int], list[int]]:
        """What hooks have noted, and what is stored."""
        with self.db.transaction() as session:
            return self.hooks, [int(name) for name in names(session)]


@pytest.fixture
def notified(flavour: Flavour) -> Iterator[Notified]:
    with sandbox(flavour.db):
        yield Notified(flavour.db)
    flavour.db.dispose()


def test_a_hook_without_a_transaction_runs_at_the_end_of_its_unit(
    notified: Notified,
) -> None:
    with notified.db.transaction():
        current_unit().on_commit(notified.hooks.append, 1)
        assert notified.hooks == []

    assert notified.hooks == [1]


def test_a_hook_that_fails_is_logged(
    notified: Notified, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ForcedError("no mail today")

    with notified.db.transaction() as session:
        current_unit().on_commit(fail)
        notified.do(session, 1)
    with notified.db.transaction() as session:
        notified.do(session, 2)

    assert caplog.text.count("ForcedError: no mail today") == 1
    assert notified.done == ([1, 2], [1, 2])


def test_a_hook_waits_for_the_commit(notified: Notified) -> None:
    with notified.db.transaction() as session:
        notified.do(session, 1)
        assert notified.hooks == []

    assert notified.done == ([1], [1])


def test_no_hook_runs_after_a_rollback(notified: Notified) -> None:
    with suppress(ForcedError), notified.db.transaction() as session:
        notified.do(session, 1)
        raise ForcedError

    assert notified.done == ([], [])


def test_a_hook_of_a_savepoint_waits_for_the_commit(notified: Notified) -> None:
    with notified.db.transaction() as session:
        with session.begin_nested():
            notified.do(session, 1)
        assert notified.hooks == []

    assert notified.done == ([1], [1])


def test_hooks_of_a_savepoint_that_is_rolled_back_are_discarded(
    notified: Notified,
) -> None:
    with notified.db.transaction() as session:
        with session.begin_nested():
            notified.do(session, 1)
        with suppress(ForcedError), session.begin_nested():
            notified.do(session, 2)
            raise ForcedError
        with session.begin_nested():
            notified.do(session, 3)

    assert notified.done == ([1, 3], [1, 3])


def test_no_hook_of_a_savepoint_runs_after_a_rollback(notified: Notified) -> None:
    with suppress(ForcedError), notified.db.transaction() as session:
        with session.begin_nested():
            notified.do(session, 1)
        raise ForcedError

    assert notified.done == ([], [])


def test_an_inner_savepoint_is_rolled_back_with_the_outer_one(
    notified: Notified,
) -> None:
    with notified.db.transaction() as session:
        with suppress(ForcedError), session.begin_nested():
            with session.begin_nested():
                notified.do(session, 1)
            raise ForcedError
        notified.do(session, 2)

    assert notified.done == ([2], [2])


def test_a_joined_block_that_fails_rolls_back_the_outer_one(
    notified: Notified,
) -> None:
    def fail_inside() -> None:
        with notified.db.transaction() as session:
            notified.do(session, 1)
            with suppress(ForcedError), notified.db.transaction(nested="join"):
                raise ForcedError

    with pytest.raises(Exception, match=r"ForcedError|rolled back"):
        fail_inside()

    assert notified.done == ([], [])


def test_an_empty_savepoint_that_is_rolled_back_affects_nothing(
    notified: Notified,
) -> None:
    with notified.db.transaction() as session, session.begin_nested():
        notified.do(session, 1)
        with suppress(ForcedError), session.begin_nested():
            raise ForcedError

    assert notified.done == ([1], [1])


def test_hooks_run_in_order(notified: Notified) -> None:
    with notified.db.transaction() as session:
        notified.do(session, 1)
        with session.begin_nested():
            notified.do(session, 2)
        notified.do(session, 3)

    assert notified.done == ([1, 2, 3], [1, 2, 3])


def test_hooks_run_once(notified: Notified) -> None:
    for number in (1, 2):
        with notified.db.transaction() as session:
            notified.do(session, number)

    assert notified.done == ([1, 2], [1, 2])


def test_hooks_of_a_rollback_do_not_run_later(notified: Notified) -> None:
    with suppress(ForcedError), notified.db.transaction() as session:
        notified.do(session, 1)
        raise ForcedError
    with notified.db.transaction() as session:
        notified.do(session, 2)

    assert notified.done == ([2], [2])


def test_hooks_of_a_lost_connection_do_not_run(notified: Notified) -> None:
    with suppress(Exception), notified.db.transaction() as session:
        notified.do(session, 1)
        session.connection().invalidate()
    with notified.db.transaction() as session:
        notified.do(session, 2)

    assert notified.done == ([2], [2])


def test_a_hook_may_query(notified: Notified) -> None:
    def query() -> None:
        notified.hooks.extend(notified.done[1])

    with notified.db.transaction() as session:
        add_item(session, "1")
        current_unit().on_commit(query)

    assert notified.done == ([1], [1])


def test_a_hook_may_have_a_transaction(notified: Notified) -> None:
    def store() -> None:
        with notified.db.transaction() as session:
            notified.do(session, 1)

    with notified.db.transaction() as session:
        names(session)
        current_unit().on_commit(store)

    assert notified.done == ([1], [1])


def test_a_hook_outside_of_a_unit_is_refused(notified: Notified) -> None:
    with pytest.raises(MissingSessionError):
        current_unit().on_commit(print)


def test_what_can_not_be_called_is_refused(notified: Notified) -> None:
    hook: Any = "not callable"
    with notified.db.transaction(), pytest.raises(UsageError, match="not callable"):
        current_unit().on_commit(hook)


# captureOnCommitCallbacks()


def test_a_hook_of_before_the_block_is_not_captured(notified: Notified) -> None:
    with notified.db.transaction() as session:
        notified.do(session, 1)
    with capture_on_commit() as hooks, notified.db.transaction() as session:
        notified.do(session, 2)

    assert (len(hooks), notified.hooks) == (1, [1])


def test_each_hook_of_a_tree_is_called_and_captured_once(notified: Notified) -> None:
    tree = {"root": ["branch", "leaf 3"], "branch": ["leaf 1", "leaf 2"]}
    called: list[str] = []

    def visit(name: str) -> None:
        called.append(name)
        for child in tree.get(name, []):
            current_unit().on_commit(visit, child)

    with capture_on_commit(execute=True) as hooks, notified.db.transaction() as session:
        names(session)
        current_unit().on_commit(visit, "root")

    assert called == ["root", "branch", "leaf 3", "leaf 1", "leaf 2"]
    assert len(hooks) == 5
