"""What the ending of one request does, directly or by its plan, with a fault in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from anyio import CancelScope
from fastapi import FastAPI
from sqlalchemy import delete, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from support.asgi import call
from support.commit_server import LOCK, WAIT_AT_COMMIT
from support.flavours import Flavour, Observer
from support.models import Item, add_item, add_orphan, names
from support.pool import until_idle
from support.swallowing import wrong_sql
from unitwork import DBSessionMiddleware, UnitOfWork, current_unit
from unitwork._asgi import response_ending
from unitwork._unit.direct_ending import DirectEnding, begin_directly
from unitwork._unit.unit import Unit
from unitwork.testing import CommitFault, commit_faults

SESSION_EVENTS = ["before_commit", "after_commit", "after_rollback"]
POOL_EVENTS = ["reset", "checkin", "invalidate", "close"]
Body = Callable[[Session], object]


@dataclass
class Run:
    """One request; its *steps* in order."""

    flavour: Flavour
    steps: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)
    units: list[UnitOfWork] = field(default_factory=list)
    cancel: Callable[[], object] = lambda: None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def listen(self, target: Any, name: str, listener: Callable[..., object]) -> None:
        event.listen(target, name, listener)
        self.stack.callback(event.remove, target, name, listener)

    def note(self, step: str) -> Callable[..., None]:
        def noted(*args: object, **options: object) -> None:
            self.steps.append(step)

        return noted

    def note_all(self) -> None:
        for name in SESSION_EVENTS:
            self.listen(Session, name, self.note(name))
        for name in POOL_EVENTS:
            self.listen(self.flavour.sync_engine, name, self.note(name))

    async def request(self, body: Body) -> None:
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=self.flavour.db)

        def noted(session: Session) -> None:
            self.units.append(current_unit())
            body(session)

        app.post("/")(self.flavour.endpoint(noted))
        try:
            reply = await call(app, "POST", "/", on_message=self.sent)
            self.steps.append(f"raised {reply.error!r}")
        except Stop as stop:
            self.steps.append(f"raised {stop!r}")

    def sent(self, message: Any) -> None:
        self.steps.append(f"{message['type']} {message.get('status', '')}")


# Bodies


def read(session: Session) -> None:
    names(session)


def write(session: Session) -> None:
    add_item(session)


def write_at_the_end(session: Session) -> None:
    names(session)
    session.add(Item(name="one"))


def write_what_commit_refuses(session: Session) -> None:
    add_item(session)
    add_orphan(session)


def write_and_swallow(session: Session) -> None:
    add_item(session)
    with pytest.raises(DBAPIError):
        wrong_sql(session)


def write_slowly(session: Session) -> None:
    session.execute(text(WAIT_AT_COMMIT))


@contextmanager
def commits_held(url: str) -> Iterator[None]:
    """Let the COMMIT of `write_slowly()` wait in the server."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(plain, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield


BODIES: list[Body] = [read, write, write_at_the_end]
REFUSED: list[Body] = [write_what_commit_refuses, write_and_swallow]


# Faults: each is set up in a run


def no_fault(run: Run) -> None: ...


def commit_fails(fault: CommitFault | Exception) -> Callable[[Run], None]:
    def set_up(run: Run) -> None:
        run.stack.enter_context(commit_faults(run.flavour.db, fault))

    return set_up


class Stop(BaseException):
    """What ends a process, as SystemExit does."""


def fails(
    target: str, name: str, kind: type[BaseException] = LookupError
) -> Callable[[Run], None]:
    """A listener to the event *name* fails."""

    def fail(*args: object) -> None:
        raise kind(name)

    return lambda run: run.listen(_target(run, target), name, fail)


def _target(run: Run, target: str) -> Any:
    return Session if target == "session" else run.flavour.sync_engine


def in_listener(name: str, act: Callable[[Run], object]) -> Callable[[Run], None]:
    """A listener to the event *name* of sessions does *act*."""

    def set_up(run: Run) -> None:
        run.listen(Session, name, lambda *args: act(run))

    return set_up


def request_rollback(run: Run) -> None:
    run.units[0].rollback_only("in a listener")


def register_hook(run: Run) -> None:
    run.units[0].on_commit(run.steps.append, "hook")


def cancel(run: Run) -> None:
    run.cancel()


def cancel_from_thread(run: Run) -> None:
    """Cancel in the event loop, which awaits this thread; return once that is done."""
    done: Future[None] = Future()

    def cancel() -> None:
        run.cancel()
        done.set_result(None)

    run.loop.call_soon_threadsafe(cancel)
    done.result(timeout=10)


def cancel_soon(run: Run) -> None:
    asyncio.get_running_loop().call_soon(run.cancel)


def cancel_and_fail(run: Run) -> None:
    cancel_soon(run)
    commit_fails(LookupError("COMMIT"))(run)


def exceed_a_time_limit(run: Run) -> None:
    async def wait() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            run.steps.append("it was too long")

    await_only(wait())


def read_in_a_thread(run: Run) -> None:
    run.steps.append(f"{run.flavour.db.current.scalar(text('SELECT 1'))}")


def read_in_a_coroutine(run: Run) -> None:
    async def read() -> None:
        run.steps.append(f"{await run.flavour.db.current.scalar(text('SELECT 1'))}")

    await_only(read())


Fault = Callable[[Run], None]
EVERYWHERE: dict[str, Fault] = {
    "none": no_fault,
    "COMMIT fails": commit_fails(LookupError("COMMIT")),
    "COMMIT is lost": commit_fails(CommitFault.ROLLED_BACK),
    "the answer is lost": commit_fails(CommitFault.COMMITTED),
    "before_flush": fails("session", "before_flush"),
    "before_commit": fails("session", "before_commit"),
    "after_commit": fails("session", "after_commit"),
    "after_transaction_end": fails("session", "after_transaction_end"),
    "reset": fails("engine", "reset"),
    "stopped before COMMIT": fails("session", "before_commit", Stop),
    "stopped after COMMIT": fails("session", "after_commit", Stop),
    "rollback before the flush": in_listener("before_flush", request_rollback),
    "rollback before COMMIT": in_listener("before_commit", request_rollback),
    "rollback after COMMIT": in_listener("after_commit", request_rollback),
    "hook before the flush": in_listener("before_flush", register_hook),
    "hook before COMMIT": in_listener("before_commit", register_hook),
    "hook after COMMIT": in_listener("after_commit", register_hook),
}
FAULTS: dict[str, Fault] = {
    **EVERYWHERE,
    "time limit in the flush": in_listener("before_flush", exceed_a_time_limit),
    "time limit before COMMIT": in_listener("before_commit", exceed_a_time_limit),
    "time limit after COMMIT": in_listener("after_commit", exceed_a_time_limit),
    "read before COMMIT": in_listener("before_commit", read_in_a_coroutine),
    "cancelled in the flush": in_listener("before_flush", cancel),
    "cancelled soon in the flush": in_listener("before_flush", cancel_soon),
    "cancelled before COMMIT": in_listener("before_commit", cancel),
    "cancelled in COMMIT": in_listener("before_commit", cancel_soon),
    "cancelled and failed": in_listener("before_commit", cancel_and_fail),
}
IN_THREADS: dict[str, Fault] = {
    **EVERYWHERE,
    "read before COMMIT": in_listener("before_commit", read_in_a_thread),
    "cancelled before COMMIT": in_listener("before_commit", cancel_from_thread),
    "cancelled after COMMIT": in_listener("after_commit", cancel_from_thread),
}
CANCELLED_IN_FLUSH = in_listener("before_flush", cancel_from_thread)
"""The rollback begins while the thread is still in the flush, so steps vary."""


# Cancellations


async def natively(run: Run, body: Body) -> None:
    task = asyncio.create_task(run.request(body))
    run.cancel = task.cancel
    await asyncio.wait((task,))
    run.steps.append(f"cancelled {task.cancelled()}")
    if not task.cancelled():
        task.result()


async def by_scope(run: Run, body: Body) -> None:
    with CancelScope() as scope:
        run.cancel = scope.cancel
        await run.request(body)
    run.steps.append(f"cancelled {scope.cancelled_caught}")


Kind = Callable[[Run, Body], Awaitable[None]]
KINDS: list[Kind] = [natively, by_scope]


# Both ways


class Endings:
    """Both ways to end a unit, one of which is chosen; counts the direct ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.are_direct = False
        self.begun_directly = 0
        monkeypatch.setattr(response_ending, "begin_directly", self.begin)

    def begin(self, unit: Unit) -> DirectEnding | None:
        found = begin_directly(unit) if self.are_direct else None
        self.begun_directly += found is not None
        return found


async def account_of(
    flavour: Flavour,
    body: Body,
    fault: Fault,
    kind: Kind,
) -> list[str]:
    """Make one request, with one *fault* in it; tell all that happened."""
    await flavour.work(_delete_all)
    run = Run(flavour)
    with run.stack:
        run.note_all()
        fault(run)
        await kind(run, body)
    await until_idle(flavour)
    unit, stored = run.units[0], Observer(flavour.url).names()
    end = [f"{unit.outcome} {unit.reason}", f"stored {stored}"]
    return [*run.steps, *end]


def _delete_all(session: Session) -> None:
    session.execute(delete(Item))
