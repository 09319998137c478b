"""Sessions without a database, and plans whose steps are noted, or fail on cue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from unitwork import DatabaseSettings, Outcome
from unitwork._commit.finish import finish
from unitwork._commit.hooks import Hook, Hooks
from unitwork._execution.plan import HookCall, Plan, Step
from unitwork._session.opening import Opening
from unitwork._session.unit_session import UnitSession

SETTINGS = DatabaseSettings(commit_timeout=9.0, end_timeout=7.0)


class PlaySession(Session):
    """A session that has nothing to connect to."""

    failure: BaseException | None = None
    """What its COMMIT raises."""
    is_lost = False
    on_flush: Callable[[], object] | None = None

    @property
    def is_active(self) -> bool:  # type: ignore[override]  # a plain property here
        return not self.is_lost

    def flush(self, objects: Any = None) -> None:
        on_flush, self.on_flush = self.on_flush, None
        if on_flush is not None:
            on_flush()

    def commit(self) -> None:
        if self.failure is not None:
            raise self.failure
        super().commit()


class PlayUnitSession(UnitSession):
    """Notes what is done to it, other than by the steps of a plan."""

    __slots__ = ("play_session", "steps")

    def __init__(
        self,
        name: str,
        owner: Any,
        steps: list[str],
        settings: DatabaseSettings = SETTINGS,
    ) -> None:
        self.play_session = PlaySession()
        super().__init__(self.play_session, owner, name, Opening(settings))
        self.steps = steps
        self.play_session.begin()

    def abort_connections(self) -> None:
        self.steps.append(f"abort {self.name}")

    def close(self) -> None:
        owner: Any = self.owner
        self.steps.append(f"close {self.name}: {owner.outcome.value}")
        super().close()


class PlayUnit:
    """What `finish()` and the sessions have to know of a unit."""

    two_phase = None
    undone_because = ""
    in_hook = was_cancelled = False
    hooks_until = None
    report = unclear_commit = None
    is_inside_a_retry = False

    def __init__(self, play: Play) -> None:
        self.play = play
        self.hooks: Hooks | None = Hooks()
        self.rollback_when: Callable[[], bool] = lambda: False
        self.outcomes: list[Outcome] = []
        self.is_committing = False

    @property
    def sessions(self) -> list[PlayUnitSession]:
        return self.play.sessions

    @property
    def must_roll_back(self) -> bool:
        return self.rollback_when()

    def sessions_to_end(self) -> list[UnitSession]:
        return [session for session in self.play.sessions if session.in_transaction]

    def hooks_to_call(self) -> Hooks | None:
        return self.hooks

    def begin_commit(self) -> bool:
        if not self.is_committing:
            registered = self.hooks is not None and bool(self.hooks.before_commit)
            self.is_committing = not registered and not self.must_roll_back
        return self.is_committing

    def roll_back(self) -> None:
        pass

    def settle(self, outcome: Outcome, error: BaseException | None) -> None:
        self.outcomes.append(outcome)


class Play:
    """Makes the steps of a plan, fails on cue, and keeps a list."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.sessions: list[PlayUnitSession] = []
        self.unit = PlayUnit(self)

    @property
    def outcomes(self) -> list[Outcome]:
        return self.unit.outcomes

    def session(self, name: str, owner: Any = None) -> PlayUnitSession:
        session = PlayUnitSession(name, owner or self.unit, self.steps)
        self.sessions.append(session)
        return session

    def hook(self, kind: str, name: str) -> None:
        queue = getattr(self.unit.hooks, kind)
        queue.append(Hook(partial(self.steps.append, name), ()))

    def finish(self, *, commit: bool) -> Plan[bool]:
        return finish(self.unit, commit=commit)

    def run(
        self, plan: Plan[Any], fail_at: int = -1, error: BaseException | None = None
    ) -> BaseException | None:
        """Make the steps; step number *fail_at* raises *error*. Give what came out."""
        made, result = 0, None
        caught: BaseException | None = None
        try:
            while True:
                step = plan.send(result) if caught is None else plan.throw(caught)
                failure = error if made == fail_at else None
                made, result, caught = made + 1, None, None
                try:
                    result = self.make(step, failure)
                except BaseException as raised:
                    caught = raised
        except StopIteration:
            return None
        except BaseException as raised:
            return raised

    def make(self, step: Any, failure: BaseException | None = None) -> Any:
        """Make one step, which raises *failure*: COMMIT does once it has been sent."""
        if isinstance(step, HookCall):
            step.call()  # notes the name of the hook
            if failure is not None:
                self.steps[-1] += " fails"
                raise failure
            return None
        assert isinstance(step, Step)
        name = f"{name_of(step)} {step.session.name}"
        session: Any = step.session.sync_session
        try:
            if failure is not None and name_of(step) != "commit":
                raise failure
            session.failure = failure
            result = step.call(session)
        except BaseException:
            self.steps.append(f"{name} fails")
            raise
        self.steps.append(f"{name} is not sent" if result is False else name)
        return result


def name_of(step: Step) -> str:
    return step.call.__name__
