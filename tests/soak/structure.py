"""Operations that hold others, or end what is open: savepoints, blocks, by hand."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from soak.actor import Actor, Either, operation, settled
from soak.model import Books, Scope, Unit, fate_after
from soak.program import Op
from unitwork import Phase, classify, current_unit


@operation
async def try_(actor: Actor, op: Op) -> None:
    try:
        await actor.run(op.body)
    except Exception:
        await actor.run(op.handler)


# Savepoints and blocks


@operation
async def savepoint(actor: Actor, op: Op) -> None:
    await _in_savepoint(actor, actor.session.begin_nested(), op)


async def _in_savepoint(actor: Actor, manager: Any, op: Op) -> None:
    unit, scope = actor.unit, Scope()
    try:
        async with Either(manager):
            scope = unit.savepoint()
            await actor.run(op.body)
    except BaseException:
        unit.undone(scope)
        raise
    unit.released(scope)


@operation
async def savepoint_by_hand(actor: Actor, op: Op) -> None:
    nested = actor.session.begin_nested()
    nested = await nested if inspect.isawaitable(nested) else nested
    scope = actor.unit.savepoint()
    await actor.run(op.body)
    if op.arg == "rollback":
        try:
            await settled(nested.rollback())
        finally:
            actor.unit.undone(scope)
        return
    try:
        await settled(nested.commit())
    except BaseException:
        actor.unit.undone(scope)
        raise
    actor.unit.released(scope)


@operation
async def block(actor: Actor, op: Op) -> None:
    stage, unit = actor.stage, actor.unit
    if op.arg == "own":
        if stage.is_sqlite and actor.sync_session.in_transaction():
            return  # it would wait for the lock that this one has
        await in_block(stage, actor.books, op.body, by_hook=unit.by_hook)
    elif op.arg == "savepoint":
        await _in_savepoint(actor, stage.db.transaction(nested="savepoint"), op)
    else:
        try:
            async with Either(stage.db.transaction(nested="join")):
                await actor.run(op.body)
        except BaseException:
            unit.must_fail = "a joined block has failed"
            raise


async def in_block(
    stage: Any, books: Books, ops: tuple[Op, ...], *, by_hook: bool = False
) -> None:
    """Run *ops* in a unit of their own."""
    unit = Unit(books, by_hook=by_hook)
    try:
        async with Either(stage.db.transaction()) as session:
            await Actor(stage, books, unit, session).run(ops)
    except BaseException as error:
        books.failed(error)
        unit.settle(fate_after(error), f"a block raised {error!r:.80}")
        raise
    unit.succeed("a block ended well")


# By hand


@operation
async def commit(actor: Actor, op: Op) -> None:
    await _committed(actor, actor.session.commit, "session.commit()")


async def _committed(actor: Actor, work: Callable[[], Any], what: str) -> None:
    try:
        await settled(work())
    except BaseException as error:
        if (
            not isinstance(error, Exception)
            or classify(error, phase=Phase.COMMIT).unknown
        ):
            actor.unit.committed_in_doubt()
        raise
    actor.unit.committed(f"{what} returned")


@operation
async def rollback(actor: Actor, op: Op) -> None:
    actor.books.failed("rollback by hand")
    try:
        await settled(actor.session.rollback())
    finally:
        actor.unit.rolled_back()


@operation
async def close(actor: Actor, op: Op) -> None:
    actor.books.failed("closed by hand")
    await settled(actor.session.close())


@operation
async def with_session(actor: Actor, op: Op) -> None:
    actor.books.failed("closed by hand")
    async with Either(actor.session):
        try:
            await actor.run(op.body)
        except BaseException:
            actor.unit.rolled_back()
            raise


@operation
async def begin(actor: Actor, op: Op) -> None:
    begun = []

    async def within() -> None:
        async with Either(actor.session.begin()):
            begun.append(True)
            try:
                await actor.run(op.body)
            except BaseException:
                actor.unit.rolled_back()
                raise

    try:
        await _committed(actor, within, "session.begin()")
    except Exception:
        if begun:
            actor.unit.rolled_back()  # as SQLAlchemy has
        raise


@operation
async def rollback_only(actor: Actor, op: Op) -> None:
    current_unit().rollback_only()
    actor.unit.rollback_only = True


@operation
async def commit_anyway(actor: Actor, op: Op) -> None:
    current_unit().commit_anyway()
    actor.unit.commit_anyway = True
