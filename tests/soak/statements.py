"""Operations that write, read, fail."""

from __future__ import annotations

import asyncio
import time

from fastapi import HTTPException
from sqlalchemy import delete, func, insert, select, text, update

from soak.actor import HANDLED, Actor, Answered, operation, settled
from soak.program import Op
from soak.tables import CONFLICT, CURSOR, Orphan, Row, Taken

# Writes


@operation
async def add(actor: Actor, op: Op) -> None:
    async def do(key: str) -> None:
        row = Row(key=key)
        actor.session.add(row)
        actor._last = row, key

    await actor.write(do)


@operation
async def add_flush(actor: Actor, op: Op) -> None:
    async def do(key: str) -> None:
        row = Row(key=key)
        actor.session.add(row)
        await settled(actor.session.flush())
        actor._last = row, key

    await actor.write(do)


@operation
async def insert_(actor: Actor, op: Op) -> None:
    await actor.write(lambda key: actor.session.execute(insert(Row).values(key=key)))


@operation
async def text_(actor: Actor, op: Op) -> None:
    await actor.write(lambda key: actor.session.execute(text(op.arg), {"key": key}))


@operation
async def update_(actor: Actor, op: Op) -> None:
    if not (rows := actor.unit.open_rows):
        return
    old, before = rows[-1], actor.unit.scope
    scope, key = actor.unit.writes()
    changed = await settled(
        actor.session.execute(update(Row).where(Row.key == old).values(key=key))
    )
    if changed.rowcount and scope is before:
        actor.unit.deleted(old)
        actor.unit.wrote(scope, key)
        actor.collected.append(key)


@operation
async def delete_(actor: Actor, op: Op) -> None:
    if not (rows := actor.unit.open_rows):
        return
    scope = actor.unit.scope
    done = await settled(actor.session.execute(delete(Row).where(Row.key == rows[0])))
    if done.rowcount:
        scope.deleted.append(rows[0])


@operation
async def delete_orm(actor: Actor, op: Op) -> None:
    if actor._last is None or actor._last[1] not in actor.unit.open_rows:
        return
    (row, key), actor._last = actor._last, None
    scope = actor.unit.scope
    await settled(actor.session.flush())
    await settled(actor.session.delete(row))
    await settled(actor.session.flush())
    scope.deleted.append(key)


# Reads


@operation
async def read(actor: Actor, op: Op) -> None:
    await settled(actor.session.scalar(select(func.count()).select_from(Row)))


@operation
async def cursor(actor: Actor, op: Op) -> None:
    """One that is left open."""
    actor.books.failed("an open cursor")
    actor.unit.has_cursor = True
    session = actor.session
    if hasattr(session, "stream"):
        result = await session.stream(CURSOR)
        await result.fetchone()
    else:
        result = session.execute(CURSOR.execution_options(yield_per=1))
        result.fetchone()
    actor.stage.kept.append(result)


# Failures


@operation
async def duplicate(actor: Actor, op: Op) -> None:
    actor.session.add(Taken(id=1))
    await settled(actor.session.flush())


@operation
async def bad_statement(actor: Actor, op: Op) -> None:
    await settled(actor.session.execute(text("SELECT no_such_thing")))


@operation
async def orphan(actor: Actor, op: Op) -> None:
    actor.books.failed("an orphan")
    await settled(actor.session.execute(insert(Orphan).values(parent_id=999)))


@operation
async def conflict(actor: Actor, op: Op) -> None:
    if actor.books.attempt <= int(op.arg):
        await settled(actor.session.execute(CONFLICT))


@operation
async def raise_(actor: Actor, op: Op) -> None:
    if op.arg == "LookupError":
        raise LookupError
    if op.arg.startswith("http"):
        raise HTTPException(int(op.arg.removeprefix("http")), headers=HANDLED)
    raise Answered(op.arg)


@operation
async def sleep(actor: Actor, op: Op) -> None:
    nap = asyncio.sleep if actor.stage.is_async else time.sleep
    await settled(nap(float(op.arg)))


@operation
async def kill(actor: Actor, op: Op) -> None:
    """Terminate the server's side of our connection."""
    connection = await settled(actor.session.connection())
    backend = getattr(connection, "sync_connection", connection).info["backend"]
    actor.books.failed("killed")
    await actor.stage.kill(backend)
