"""One unit, over a session that waits for the test, and a model of both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy.exc import InvalidRequestError

from support.waiting_session import FAIL, LOST, OK, STORED, FakeDatabase
from unitwork import (
    CommitUnknownError,
    DeadlineExceededError,
    Outcome,
    SessionEndedError,
    UnexpectedRollbackError,
    UsageError,
)
from unitwork._execution.plan import Plan
from unitwork._session.state import Access
from unitwork._unit import endings
from unitwork._unit.decision import Intent
from unitwork._unit.owner import UnitOwner
from unitwork._unit.running import run_ending
from unitwork._unit.state import UnitState
from unitwork._unit.unit import Unit
from unitwork._unit.unit_of_work import facade_of
from unitwork.outcome import Verdict

COMMIT, ROLL_BACK = Verdict(True, "it went well"), Verdict(False, "it did not")
EXPECTED = (
    LookupError,
    CommitUnknownError,
    UnexpectedRollbackError,
    DeadlineExceededError,
    UsageError,  # a before_commit hook has taken too long
)
KINDS = {
    Outcome.COMMITTED: "on_commit",
    Outcome.ROLLED_BACK: "on_rollback",
    Outcome.UNKNOWN: "on_unknown",
}
SIGNS = {"before_commit": "bB", "flush": "fF", "commit": "Cx", "rollback": "rR"}
"""What stands for a step in the record of a round: if it went well, and if not."""
USING_SESSION = ("flush", "commit", "rollback")
ROUND = re.compile("[bf]*(C|[BFxu]?[rR]?)[hH]*")
"""Hooks and flushes, COMMIT or at most one ROLLBACK, the hooks of the outcome."""
acting: ContextVar[Actor] = ContextVar("acting")


@dataclass
class Round:
    """One ending, from `begin_ending()` to the end of its turn."""

    actor: Actor
    steps: str = ""
    intent: Intent = Intent.UNDECIDED
    outcome: Outcome | None = None
    rollback_requested: bool = False


@dataclass
class Actor:
    """A task that ends the unit."""

    name: str
    closes: bool
    promises: bool
    """Whether it raises unless its work is stored."""
    task: asyncio.Task[None] = field(init=False)
    cancelled: bool = False


@dataclass
class World:
    """One unit, a database that waits for its orders, and the model of both."""

    faults: list[str] = field(default_factory=list)
    rows: set[int] = field(default_factory=set)
    """What the database has stored."""
    written: set[int] = field(default_factory=set)
    """What it would store if it committed now."""
    accepted: set[int] = field(default_factory=set)
    """What the application has written since the last round."""
    under_way: tuple[str, asyncio.Future[str]] | None = None
    is_cut_off: bool = False
    late: bool = False
    """Whether the step that is under way has used up each limit there is."""
    expected: Outcome | None = None
    """What the unit has to report as its outcome."""
    waiting: set[int] = field(default_factory=set)
    """The hooks whose kind is not known yet."""
    kind: str = ""
    """The kind of the hooks that the last round has called."""
    called: list[tuple[int, str]] = field(default_factory=list)
    to_call: list[tuple[int, str]] = field(default_factory=list)
    interrupted: bool = False
    """Whether a hook has been: those that wait for their turn then are not called."""
    rounds: list[Round] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    """Of rows and hooks."""

    def __post_init__(self) -> None:
        self.database: Any = FakeDatabase(self)
        self.unit = WatchedUnit(self)

    def check(self, claim: bool, otherwise: str) -> None:
        if not claim:
            self.faults.append(otherwise)

    # What an ending does

    async def step(self, name: str) -> str:
        """Wait till the test says how it goes."""
        self.check(self.under_way is None, f"{name} began during {self.under_way}")
        self.check(self.unit.is_ending, f"{name} outside of an ending")
        self.check_intent()
        if name in ("flush", "commit"):
            self.check(not self.unit.must_roll_back, f"{name} against the intent")
        elif name != "before_commit":
            accesses = {session.access for session in self.unit.sessions}
            self.check(Access.OPEN not in accesses, f"work is accepted in {name}")
        if name == "commit":
            self.check(self.unit.state is UnitState.COMMITTING, "COMMIT is not noted")
            late = self.unit.hooks is not None and self.unit.hooks.before_commit
            self.check(not late, "a before_commit hook is left out")
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.under_way, self.late = (name, future), False
        how = FAIL
        try:
            how = await future
        except asyncio.CancelledError:
            self.check(self.may_be_cancelled(name), f"{name} was cancelled")
            raise
        finally:
            self.under_way = None
            sign = SIGNS.get(name, "hH")[how != OK]
            in_doubt = name == "commit" and how in (STORED, LOST)
            self.rounds[-1].steps += "u" if in_doubt else sign
            self.check_intent()
        return how

    def may_be_cancelled(self, name: str) -> bool:
        if name in KINDS.values():  # they have time, also when they are cancelled
            self.interrupted = True
            return self.late and any(actor.cancelled for actor in self.actors)
        return name in ("flush", "before_commit")

    def check_intent(self) -> None:
        now = self.rounds[-1]
        self.check(self.unit.decision.intent >= now.intent, "the intent has fallen")
        now.intent = self.unit.decision.intent

    def go(self, how: str) -> None:
        """Let the step that is under way go on."""
        if self.under_way is not None and not self.under_way[1].done():
            self.under_way[1].set_result(how)

    def settled(self, outcome: Outcome) -> None:
        now, stored = self.rounds[-1], self.accepted & self.rows
        now.outcome, steps = outcome, set(now.steps)
        now.rollback_requested = self.unit.decision.requests_rollback
        self.check_intent()
        what = f"{outcome} after {now.steps}"
        self.check((outcome is Outcome.COMMITTED) is ("C" in steps), what)
        self.check((outcome is Outcome.UNKNOWN) is ("u" in steps), what)
        if outcome is Outcome.COMMITTED:
            self.check(not self.is_cut_off, "COMMIT of a unit that was cut off")
            self.check(stored == self.accepted, f"{what}: not all is stored")
        elif outcome is not Outcome.UNKNOWN:
            self.check(not stored, f"{what}: something is stored")
        self.check(not self.written, f"{what}: something is still open")
        self.accepted.clear()
        if self.expected in (None, Outcome.EMPTY):
            self.expected = outcome
        self.check(self.unit.outcome is self.expected, f"{what}: another is recorded")
        if outcome is Outcome.EMPTY:
            verdict = self.unit.verdict or ROLL_BACK
            committed = verdict.commit and not self.unit.must_roll_back
            outcome = Outcome.COMMITTED if committed else Outcome.ROLLED_BACK
        self.kind = KINDS[outcome]
        self.to_call += [(hook, self.kind) for hook in self.waiting]
        self.waiting.clear()

    def check_hooks(self) -> None:
        after = [call for call in self.called if call[1] != "before_commit"]
        missing = set(self.to_call) - set(after)
        all_called = sorted(after) == sorted(set(self.to_call) - missing)
        what = f"{after} != {self.to_call}"
        self.check(all_called and (self.interrupted or not missing), what)
        before = [number for number, kind in self.called if kind == "before_commit"]
        self.check(len(before) == len(set(before)), "a before_commit hook ran twice")

    # What the application does

    def work(self) -> None:
        if self.under_way is not None and self.under_way[0] in USING_SESSION:
            return  # SQLAlchemy would refuse
        with suppress(SessionEndedError, InvalidRequestError):
            (session := self.unit.session_of(self.database)).check()
            if not session.in_transaction:
                session.sync_session.begin()
            row = next(self.numbers)
            self.accepted.add(row)
            self.written.add(row)

    def hook(self, *, before: bool) -> None:
        with suppress(SessionEndedError):
            facade, number = facade_of(self.unit), next(self.numbers)
            for kind in KINDS.values():
                getattr(facade, kind)(self.call_hook, number, kind)
            if before and self.unit.state is not UnitState.COMMITTING:  # or refused
                facade.before_commit(self.call_hook, number, "before_commit")
            if self.unit.state is UnitState.SETTLED:
                self.to_call.append((number, self.kind))
            else:
                self.waiting.add(number)

    async def call_hook(self, number: int, kind: str) -> None:
        self.called.append((number, kind))
        if await self.step(kind) != OK:
            raise LookupError("the hook")

    # What ends the unit

    def act(
        self,
        name: str,
        ending: Callable[[], Plan[None] | Coroutine[Any, Any, None]],
        *,
        closes: bool = False,
        promises: bool = False,
    ) -> None:
        actor = Actor(name, closes, promises)
        actor.task = asyncio.create_task(self.run(actor, ending))
        self.actors.append(actor)

    async def run(self, actor: Actor, ending: Callable[[], Any]) -> None:
        acting.set(actor)
        error: BaseException | None = None
        try:
            found = ending()
            if not isinstance(found, Coroutine):
                found = run_ending(self.unit, found)
            await found
        except EXPECTED as caught:
            error = caught
        except asyncio.CancelledError as caught:
            error = caught
            self.check(actor.cancelled, f"{actor.name} was cancelled from inside")
        except BaseException as caught:
            error = caught
            self.faults.append(f"{actor.name} raised {caught!r}")
        closed = self.unit.state is UnitState.CLOSED
        self.check(closed or not actor.closes, f"{actor.name} has not closed the unit")
        if actor.promises and error is None:
            self.check_promise(actor)

    def check_promise(self, actor: Actor) -> None:
        own = [each for each in self.rounds if each.actor is actor]
        own = own or [each for each in self.rounds if each.actor.name == "shutdown"]
        for each in own:
            stored = each.outcome in (Outcome.COMMITTED, Outcome.EMPTY)
            kept = stored or each.rollback_requested
            self.check(kept, f"{actor.name} reports a success that is none")

    def check_shutdown(self) -> None:
        """Time has passed: none of them waits for its turn any more."""
        for actor in self.actors:
            own = self.rounds and self.rounds[-1].actor is actor
            ended = own or actor.task.done() or actor.name != "shutdown"
            self.check(bool(ended), "the shutdown never ends")

    def message(self, verdict: Verdict) -> Plan[None]:
        def decide() -> Verdict:
            self.expected = None
            return verdict

        return endings.end_message(self.unit, decide)

    def cancel(self, number: int) -> None:
        pending = [actor for actor in self.actors if not actor.task.done()]
        for actor in pending[number : number + 1]:
            actor.cancelled = True
            actor.task.cancel()


class WatchedUnit(Unit):
    """Reports its outcome to the model."""

    __slots__ = ("world",)

    def __init__(self, world: World) -> None:
        super().__init__({"fake": world.database}, UnitOwner())
        self.world = world

    def begin_ending(self, *, keep_streams_open: bool = False) -> bool:
        begun = super().begin_ending(keep_streams_open=keep_streams_open)
        if begun:
            self.world.rounds.append(Round(acting.get()))
        return begun

    def settle(self, outcome: Outcome, error: BaseException | None) -> None:
        super().settle(outcome, error)
        self.world.settled(outcome)

    def end_turn(self, state: UnitState) -> bool:
        if self.is_ending:
            steps = self.world.rounds[-1].steps
            self.world.check(bool(ROUND.fullmatch(steps)), f"a round of {steps}")
        return super().end_turn(state)

    def cut_off(self, error: UnexpectedRollbackError | DeadlineExceededError) -> bool:
        cut = super().cut_off(error)
        self.world.is_cut_off |= cut
        return cut
