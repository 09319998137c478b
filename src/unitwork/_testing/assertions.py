"""Assertions on what the code in a block does with databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .._engine.address import address_of
from .._unit.database_base import DatabaseBase
from ..errors import UsageError
from ..outcome import Outcome
from .blocks import block
from .executed_statement import listed
from .observations import EndedUnit, observed

__all__ = [
    "assert_committed",
    "assert_no_database",
    "assert_queries",
    "assert_rolled_back",
    "capture_on_commit",
]


@block
def capture_on_commit(
    *databases: DatabaseBase, execute: bool = False
) -> Iterator[list[Callable[[], object]]]:
    """Capture the `on_commit()` hooks of units that are committed in the block.

    Gives a list of those hooks, in order, each with its arguments. They are not called,
    unless *execute* is true: then each is called where it always is, after COMMIT, and
    so are hooks that it registers, which are in the list as well. Call a hook of the
    list, or await it if it is a coroutine function. Hooks of units that are rolled back
    are not in it. Of *databases* only, if any are given.

    .. versionadded:: 0.2
    """
    with observed(databases) as observation:
        observation.captured_are_called = execute
        captured: list[Callable[[], object]] = []
        observation.captured = captured
        yield captured


@block
def assert_queries(count: int, *databases: DatabaseBase) -> Iterator[None]:
    """Raise `AssertionError` unless the block executes exactly *count* statements.

    The message lists them. All statements that SQLAlchemy executes count, those of
    plain engines too; BEGIN, COMMIT, savepoints, and what unitwork sends to begin a
    transaction do not. `executemany()` is one. Of *databases* only, if any are given.

    .. versionadded:: 0.2
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise UsageError(f"count is {count!r}; give the number of statements")
    with observed(databases) as observation:
        yield
    found = len(observation.executed)
    if found != count:
        were = "statement was" if found == 1 else "statements were"
        raise AssertionError(
            f"{found} {were} executed, and {count} expected"
            + (f":{listed(observation.executed)}" if found else "")
        )


@block
def assert_no_database(*databases: DatabaseBase) -> Iterator[None]:
    """Raise `AssertionError` if the block takes a connection, or executes a statement.

    A unit of work that has not used its session has taken none. Of *databases* only, if
    any are given.

    .. versionadded:: 0.2
    """
    with observed(databases) as observation:
        yield
    if observation.executed:
        raise AssertionError(
            "the database was used, and not expected to be:"
            f"{listed(observation.executed)}"
        )
    if observation.connected:
        addresses = [address_of(engine.url) for engine in observation.connected]
        raise AssertionError(
            "a connection was taken, and none expected, though no statement was "
            f"executed:{listed(addresses)}"
        )


@block
def assert_committed(*databases: DatabaseBase) -> Iterator[None]:
    """Raise `AssertionError` unless what the block does with databases is committed.

    At least one unit of work has to be committed, and no other one rolled back; the
    message lists them. Units without a transaction do not count, nor does an attempt
    that is followed by another one. Units of *databases* only, if any are given.

    .. versionadded:: 0.2
    """
    with observed(databases) as observation:
        yield
    _check(observation.units, "committed", _is_committed)


@block
def assert_rolled_back(
    reason: str | None = None, *databases: DatabaseBase
) -> Iterator[None]:
    """Raise `AssertionError` unless what the block does with databases is rolled back.

    At least one unit of work has to be rolled back, and no other one committed; the
    message lists them. A *reason* has to be in the reason of each, such as
    `"status 409"`: see `UnitOfWork.reason`. An exception that leaves the block is
    raised on if that is so. Units count as in `assert_committed()`.

    .. versionadded:: 0.2
    """
    if not isinstance(reason, str | None):
        raise UsageError("write the reason first: assert_rolled_back(None, db)")

    def is_expected(unit: EndedUnit) -> bool:
        if unit.outcome is not Outcome.ROLLED_BACK:
            return False
        return reason is None or reason in unit.reason

    because = "" if reason is None else f" because of {reason!r}"
    with observed(databases) as observation:
        try:
            yield
        except Exception as error:
            _check(observation.units, f"rolled back{because}", is_expected, error)
            raise
    _check(observation.units, f"rolled back{because}", is_expected)


def _is_committed(unit: EndedUnit) -> bool:
    return unit.outcome is Outcome.COMMITTED


def _check(
    units: list[EndedUnit],
    expected: str,
    is_expected: Callable[[EndedUnit], bool],
    cause: Exception | None = None,
) -> None:
    if not units:
        raise AssertionError(
            f"no unit of work was {expected}: none with a transaction has ended"
        ) from cause
    if not all(map(is_expected, units)):
        raise AssertionError(
            f"not all units of work were {expected}:{listed(units)}"
        ) from cause
