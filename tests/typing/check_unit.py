"""What mypy and pyright know of units, hooks and endings; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import assert_type

from unitwork import CommitWhen, Ending, Outcome, UnitOfWork, current_unit, succeeded

unit = current_unit()
assert_type(unit, UnitOfWork)
assert_type(unit.outcome, Outcome | None)
assert_type(unit.reason, str)
assert_type(unit.rollback_only(), None)
assert_type(unit.rollback_only("dry run"), None)
assert_type(unit.commit_anyway(), None)
outside: AbstractAsyncContextManager[None] = unit.outside("openai")
sync_outside: AbstractContextManager[None] = unit.outside("openai")
unit.outside(42)  # type: ignore[arg-type]
assert_type(unit.release(), Awaitable[None])
unit.rollback_only(42)  # type: ignore[arg-type]

# Hooks are called with the arguments they were given, and those are checked


def send_mail(order: int, *, urgent: bool = False) -> str:
    return f"{order}{urgent}"


async def asend_mail(order: int) -> None: ...


class Hook:
    def __call__(self, what: str) -> None: ...


assert_type(unit.on_commit(send_mail, 1), None)
assert_type(unit.on_rollback(send_mail, 1, urgent=True), None)
assert_type(unit.before_commit(asend_mail, order=1), None)
assert_type(unit.on_unknown(asend_mail, 1), None)
unit.on_commit(Hook(), "what")
unit.on_commit(partial(send_mail, 1))
unit.on_commit(lambda: None)

unit.on_commit(send_mail)  # type: ignore[call-arg]
unit.on_commit(send_mail, "one")  # type: ignore[arg-type]
unit.on_commit(send_mail, 1, soon=True)  # type: ignore[call-arg]
unit.on_commit(send_mail, 1, urgent="yes")  # type: ignore[arg-type]
unit.on_rollback(asend_mail)  # type: ignore[call-arg]
unit.before_commit(Hook(), 42)  # type: ignore[arg-type]
unit.on_commit(send_mail(1))  # type: ignore[arg-type]
unit.on_commit(asend_mail(1))  # type: ignore[arg-type]

# Endings and policies

ending = Ending(status=200, exception=None, method="GET", path="/")
assert_type(ending.status, int)
assert_type(ending.exception, BaseException | None)
assert_type(ending.method, str)
assert_type(ending.path, str)
assert_type(succeeded(ending), bool)
Ending(200)  # type: ignore[call-arg]
Ending()  # type: ignore[call-arg]
ending.status = 500  # type: ignore[misc]

policy: CommitWhen = succeeded
policy = lambda ending: ending.status != 503  # noqa: E731  # a policy may be a lambda
policy = send_mail  # type: ignore[assignment]

shown: str = Outcome.COMMITTED.value
match unit.outcome:
    case Outcome.COMMITTED | Outcome.ROLLED_BACK | Outcome.EMPTY:
        pass
    case Outcome.UNKNOWN | Outcome.PARTIAL:
        pass
    case rest:
        assert_type(rest, None)
