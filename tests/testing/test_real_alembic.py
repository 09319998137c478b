"""Real databases whose schema is Alembic's: they are migrated, not created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config

from support.flavours import Flavour, only
from support.models import add_item
from support.real_databases import lent, real_databases
from support.sandboxes import names
from unitwork import UsageError

pytestmark = pytest.mark.anyio

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "a1", None, None, None

def upgrade():
    op.create_table(
        "item",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), unique=True),
    )
"""
BY_CONFIG = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""
BY_ENGINE = """
import asyncio
from alembic import context

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    db = context.config.attributes["db"]
    async with db.engine.connect() as connection:
        await connection.run_sync(migrate)
    await db.dispose()

asyncio.run(main())
"""
ELSEWHERE = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine("sqlite://")
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


def alembic(folder: Path, env: str, db: Any) -> Config:
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (versions / "a1_items.py").write_text(REVISION)
    (versions.parent / "env.py").write_text(env)
    config = Config()
    config.set_main_option("script_location", str(versions.parent))
    config.set_main_option("path_separator", "os")
    config.attributes["db"] = db
    return config


async def stored_in_two(flavour: Flavour, config: Config) -> list[list[str]]:
    """Store an item in two real databases; give what each of them then has."""
    found = []
    with real_databases(flavour, config) as databases:
        for _ in range(2):
            with lent(databases):
                await flavour.work(add_item)
                found.append(await flavour.work(names))
    return found


@only("sqlite3", "psycopg")
async def test_an_env_that_connects_to_what_the_config_says(
    flavour: Flavour, tmp_path: Path
) -> None:
    config = alembic(tmp_path, BY_CONFIG, flavour.db)

    assert await stored_in_two(flavour, config) == [["one"]] * 2


@only("aiosqlite", "asyncpg")
async def test_an_env_that_connects_by_the_engine(
    flavour: Flavour, tmp_path: Path
) -> None:
    config = alembic(tmp_path, BY_ENGINE, flavour.db)

    assert await stored_in_two(flavour, config) == [["one"]] * 2


@only("sqlite3", "psycopg")
async def test_an_env_that_connects_elsewhere_is_an_error(
    flavour: Flavour, tmp_path: Path
) -> None:
    config = alembic(tmp_path, ELSEWHERE, flavour.db)

    with (
        real_databases(flavour, config) as databases,
        pytest.raises(UsageError, match="it is at no revision"),
        lent(databases),
    ):
        pass
