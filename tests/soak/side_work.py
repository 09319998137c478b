"""Operations that start work beside the unit: hooks and tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from soak.actor import Actor, Either, drive, operation
from soak.model import Books, Fate, Unit, fate_after
from soak.program import Op
from soak.structure import in_block
from unitwork import UnitOfWork, current_unit


@operation
async def hook(actor: Actor, op: Op) -> None:
    stage, books, unit = actor.stage, actor.books, actor.unit
    kind, _, how = op.arg.partition(" ")

    async def before_commit() -> None:
        try:
            await Actor(stage, books, unit).run(op.body)
            if how:
                books.failed("a hook")
                raise LookupError(how)
        except BaseException:
            unit.commit_anyway = False
            raise

    async def afterwards() -> None:
        registered.calls += 1
        await in_hook(stage, books, op.body)
        if how:
            raise LookupError(how)

    run = before_commit if kind == "before_commit" else afterwards
    call: Any = run if stage.is_async else (lambda: drive(run()))
    getattr(current_unit(), kind)(call)
    registered = unit.registered(kind) if kind != "before_commit" else None


async def in_hook(stage: Any, books: Books, ops: tuple[Op, ...]) -> None:
    if ops:
        with suppress(LookupError):
            await in_block(stage, books, ops, by_hook=True)


@operation
async def spawn(actor: Actor, op: Op) -> None:
    """A task that the request waits for, or does not."""
    nested, _, outlives = op.arg.partition(" ")
    actor.books.failed("a task beside it")
    if nested == "own":
        # It may commit after the attempt that has started it.
        work = in_block(actor.stage, actor.books, op.body, by_hook=True)
    else:
        work = _beside(actor, current_unit(), nested, op)
    task = asyncio.create_task(_unless_it_fails(work))
    actor.stage.tasks.add(task)
    task.add_done_callback(actor.stage.tasks.discard)
    if not outlives:
        await asyncio.wait([task])


async def _unless_it_fails(work: Coroutine[Any, Any, None]) -> None:
    with suppress(Exception):
        await work


async def _beside(actor: Actor, around: UnitOfWork, nested: Any, op: Op) -> None:
    """A block that joins the unit *around*, which may end meanwhile, or has ended."""
    stage, books, unit, epoch = actor.stage, actor.books, actor.unit, actor.unit.epoch
    beside, because = Actor(stage, books, unit), "a block of a task beside it"
    try:
        async with Either(stage.db.transaction(nested=nested)) as session:
            if current_unit() is not around:
                unit = Unit(books)
            beside = Actor(stage, books, unit, session)
            await beside.run(op.body)
    except BaseException as error:
        books.failed(error)
        actor.unit.has_failed_beside = True
        if unit is not actor.unit:
            unit.settle(fate_after(error), because)
        books.claim(beside.collected, Fate.TOGETHER, because)
        raise
    if unit is not actor.unit:
        unit.succeed(because)
    elif unit.epoch != epoch:
        books.claim(beside.collected, Fate.TOGETHER, because)


@operation
async def end_beside(actor: Actor, op: Op) -> None:
    """A task that ends the transaction; the program does not wait for it."""
    session, unit = actor.session, actor.unit
    undo = (await session.connection()).rollback
    actor.books.failed("a task beside it")
    if op.arg == "rollback":
        unit.undone_beside()
    else:
        unit.committed_in_doubt()
    unit.is_loose, unit.may_be_undone = True, op.arg == "rollback"
    ends = {"commit": session.commit, "rollback": session.rollback, "undo": undo}
    task = asyncio.create_task(_unless_it_fails(ends[op.arg]()))
    actor.stage.tasks.add(task)
    task.add_done_callback(actor.stage.tasks.discard)
    await asyncio.sleep(0)  # it is sent
