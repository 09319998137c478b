"""Operations that go past SQLAlchemy, straight to the driver's connection."""

from __future__ import annotations

from typing import Any

from soak.actor import Actor, Either, operation, settled
from soak.program import Op

INSERT = "INSERT INTO soak_row (key) VALUES ('{}')"


async def _execute(connection: Any, sql: str) -> None:
    await settled(connection.execute(sql))


@operation
async def driver_insert(actor: Actor, op: Op) -> None:
    connection = await actor.driver()
    await actor.write(lambda key: _execute(connection, INSERT.format(key)))


@operation
async def driver_copy(actor: Actor, op: Op) -> None:
    connection = await actor.driver()

    async def copy(key: str) -> None:
        if hasattr(connection, "copy_records_to_table"):
            await connection.copy_records_to_table(
                "soak_row", records=[(key,)], columns=["key"]
            )
            return
        async with (
            Either(connection.cursor()) as cursor,
            Either(cursor.copy("COPY soak_row (key) FROM STDIN")) as copying,
        ):
            await settled(copying.write_row((key,)))

    await actor.write(copy)


@operation
async def driver_error(actor: Actor, op: Op) -> None:
    await _execute(await actor.driver(), "SELECT no_such_thing")


@operation
async def driver_rollback(actor: Actor, op: Op) -> None:
    actor.books.failed("rolled back through the driver")
    await _end(actor, "ROLLBACK")


@operation
async def driver_commit(actor: Actor, op: Op) -> None:
    actor.books.failed("committed through the driver")
    await _end(actor, "COMMIT")


@operation
async def driver_rollback_begin(actor: Actor, op: Op) -> None:
    actor.books.failed("rolled back and begun through the driver")
    await _end(actor, "ROLLBACK; BEGIN")


@operation
async def driver_commit_begin(actor: Actor, op: Op) -> None:
    actor.books.failed("committed and begun through the driver")
    await _end(actor, "COMMIT; BEGIN")


async def _end(actor: Actor, sql: str) -> None:
    """From now on each row is on its own: stored, or not."""
    connection = await actor.driver()
    try:
        await _execute(connection, sql)
    finally:
        actor.unit.committed_in_doubt()
        actor.unit.is_loose = True
