"""The real Alembic, with the page's `env.py`."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from support.manual import Page
from support.migrating import alembic, imported_anew
from support.pages import postgresql


@contextmanager
def sqlite(driver: str) -> Iterator[str]:
    yield "sqlite+aiosqlite:///migrated.db"


def commands(page: Page) -> list[str]:
    """The first three commands of the page that run Alembic."""
    return re.findall(r"^\$ (alembic .*)$", page.text, re.MULTILINE)[:3]


def migrate(page: Page) -> None:
    init, revision, upgrade = commands(page)
    alembic(init)
    page.write_files()
    alembic(revision, "main")
    alembic(upgrade, "main")


@pytest.mark.parametrize("database", [sqlite, postgresql])
def test_migrates_what_it_has_generated(
    page: Page,
    database: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    opened: AbstractContextManager[str] = database("asyncpg")
    with opened as url:
        monkeypatch.setenv("DATABASE_URL", url)
        migrate(page)
        alembic("alembic check", "main")  # fails if a model has changed since
        alembic("alembic upgrade head --sql", "main")

    assert "CREATE TABLE owner" in capfd.readouterr().out


async def store(main: Any) -> None:
    async with main.db.transaction() as session:
        session.add(main.Owner(id=1, name="Ada"))
        await session.flush()
        session.add(main.Item(id=1, owner_id=1))
    await main.db.dispose()


async def count(main: Any) -> int:
    async with main.db.transaction() as session:
        found: int = await session.scalar(select(func.count(main.Item.id)))
    await main.db.dispose()
    return found


def test_a_batch_migration_keeps_the_rows_that_refer(page: Page) -> None:
    migrate(page)
    models = Path("main.py")
    with imported_anew("main") as patch:
        patch.syspath_prepend(".")
        main = import_module("main")
        asyncio.run(store(main))
        models.write_text(models.read_text().replace("String(100)", "String(1000)"))
        alembic("alembic revision --autogenerate -m longer", "main")
        alembic("alembic upgrade head", "main")
        [changed] = Path("migrations/versions").glob("*_longer.py")

        assert "batch_alter_table('owner'" in changed.read_text()
        assert asyncio.run(count(main)) == 1


def test_sqlite_keeps_the_first_half_of_a_migration_that_fails(page: Page) -> None:
    migrate(page)
    alembic("alembic revision -m broken", "main")
    [broken] = Path("migrations/versions").glob("*_broken.py")
    text = broken.read_text()
    steps = (
        "op.add_column('owner', sa.Column('age', sa.Integer()))\n    raise LookupError"
    )
    broken.write_text(text.replace("    pass", f"    {steps}", 1))
    with pytest.raises(LookupError):
        alembic("alembic upgrade head", "main")

    with sqlite3.connect("migrated.db") as connection:
        columns = connection.execute("PRAGMA table_info(owner)").fetchall()
    connection.close()

    assert [name for _, name, *_ in columns] == ["id", "name", "age"]
