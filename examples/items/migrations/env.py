"""Run by Alembic: migrates the database of the application, on its own engine."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from examples.items.database import db
from examples.items.models import Base


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()


async def migrate_online() -> None:
    async with db.engine.connect() as connection:
        await connection.run_sync(migrate)
    await db.dispose()


def write_sql() -> None:
    context.configure(
        url=db.engine.url, target_metadata=Base.metadata, literal_binds=True
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    write_sql()
else:
    asyncio.run(migrate_online())
