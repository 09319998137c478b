"""Alembic on `db.engine`: batch migrations of SQLite leave the rows that refer."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.orm import Session

from support.flavours import Flavour, only
from support.models import names

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

TABLES = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name VARCHAR(10));
CREATE TABLE part (id INTEGER PRIMARY KEY,
  parent_id INTEGER REFERENCES parent(id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1, 'a');
INSERT INTO part VALUES (1, 1), (2, 1)
"""


def migrate(connection: sa.Connection) -> None:
    context = MigrationContext.configure(connection, opts={"render_as_batch": True})
    parents = Operations(context).batch_alter_table("parent")
    with context.begin_transaction(), parents as batch:
        batch.alter_column("name", type_=sa.String(20))


async def on_engine(flavour: Flavour, work: Any) -> Any:
    if flavour.is_async:
        async with flavour.db.engine.begin() as connection:
            return await connection.run_sync(work)
    with flavour.db.engine.begin() as connection:
        return work(connection)


def create(session: Session) -> None:
    for statement in TABLES.split(";"):
        session.execute(sa.text(statement))


def count_parts(session: Session) -> int | None:
    return session.scalar(sa.text("SELECT count(*) FROM part"))


async def test_a_batch_migration_deletes_no_rows_that_refer(flavour: Flavour) -> None:
    await flavour.work(create)

    await on_engine(flavour, migrate)

    assert await flavour.work(count_parts) == 2


async def test_units_enforce_foreign_keys_again_after_a_migration(
    flavour: Flavour,
) -> None:
    single = flavour.another(pool_size=1, max_overflow=0)
    await single.work(create)
    await on_engine(single, migrate)

    def add_orphan(session: Session) -> None:
        session.execute(sa.text("INSERT INTO part VALUES (3, 9)"))

    with pytest.raises(sa.exc.IntegrityError, match="FOREIGN KEY"):
        await single.work(add_orphan)
    await single.dispose()


async def test_a_migration_that_fails_leaves_the_engine_usable(
    flavour: Flavour,
) -> None:
    with pytest.raises(sa.exc.NoSuchTableError):
        await on_engine(flavour, migrate)

    assert await flavour.work(names) == []
