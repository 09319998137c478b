"""Sessions without a database, which note what is done to them, or fail on cue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from unitwork import CommitUnknownError, DatabaseSettings, Outcome, UnitOfWork, _session
from unitwork._drive import Plan, Step
from unitwork._hooks import Hook, Hooks
from unitwork._plan import finish

CALLS = {
    _session.verify: "verify",
    Session.flush: "flush",
    _session.commit: "commit",
    _session.rollback: "rollback",
}


class StubLease:
    """What a plan and a unit want to know of a lease; `open` till its step is made."""

    is_async = False
    streaming = False
    busy = False
    suspect = False
    over = False
    places = ()
    committing = False
    stores_at_once = False
    patience = 0.0
    settings = DatabaseSettings(commit_timeout=9.0)
    doubts: Any = ()

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name = name
        self.steps = steps
        self.open = True
        self.ended: UnitOfWork | None = None
        self.sync_session: Any = self

    def get_nested_transaction(self) -> None:
        return None

    get_transaction = get_nested_transaction

    def in_doubt(self, error: BaseException) -> bool:
        return isinstance(error, CommitUnknownError | ConnectionError)

    def discard(self) -> None:
        self.steps.append(f"discard {self.name}")

    def leave(self) -> None:
        pass

    def close(self, unit: UnitOfWork) -> None:
        became = unit.outcome.value if unit.outcome else "open"
        self.steps.append(f"close {self.name}: {became}")


class Play:
    """Makes the steps of a plan, fails on cue, and keeps a list."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.outcomes: list[Outcome] = []
        self.hooks = Hooks()
        self.leases: list[StubLease] = []

    def lease(self, name: str) -> StubLease:
        self.leases.append(StubLease(name, self.steps))
        return self.leases[-1]

    def hook(self, kind: str, name: str) -> None:
        queue = getattr(self.hooks, kind)
        queue.append(Hook(partial(self.steps.append, name), ()))

    def finish(
        self, *, commit: bool, doomed: Callable[[], bool] = lambda: False
    ) -> Plan[bool]:
        def settled(outcome: Outcome, error: BaseException | None) -> None:
            self.outcomes.append(outcome)

        def open_leases() -> Any:
            return [lease for lease in self.leases if lease.open]

        return finish(
            open_leases,
            lambda: self.hooks,
            commit=commit,
            doomed=doomed,
            settled=settled,
        )

    def make(self, step: Step) -> str:
        if step.lease is None:
            step.call()
            return self.steps.pop()
        lease: Any = step.lease
        name = CALLS[step.call]
        if name in ("commit", "rollback"):
            lease.open = False
        return f"{name} {lease.name}"

    def run(
        self, plan: Plan[Any], fail_at: int = -1, error: BaseException | None = None
    ) -> BaseException | None:
        """Make the steps; raise *error* in place of number *fail_at*. Say what came."""
        made = 0
        caught: BaseException | None = None
        try:
            step = next(plan)
            while True:
                failing = made == fail_at
                was_open = getattr(step.lease, "open", None)
                name = self.make(step)
                made += 1
                self.steps.append(f"{name} fails" if failing else name)
                if failing and error is not None:
                    if step.lease is not None:
                        step.lease.open = was_open  # type: ignore[misc, assignment]  # a stub
                    step = plan.throw(error)
                else:
                    step = plan.send(None)
        except StopIteration:
            pass
        except BaseException as raised:
            caught = raised
        return caught
