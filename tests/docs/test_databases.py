"""What the page on databases says is so."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from support.manual import ROOT, Page, page_of
from support.page_tables import code_in, rows
from unitwork import AsyncDatabase, DatabaseSettings
from unitwork._sql.session_statements import find_traces

TEXT = page_of(Path(__file__)).read_text(encoding="utf-8")
DRIVERS = rows(TEXT, "Database", "`AsyncDatabase`")
STATEMENTS = [
    [found[0] for cell in row if (found := code_in(cell))]
    for row in rows(TEXT, "Instead of", "Write")
]


def test_lists_each_setting_and_its_default() -> None:
    listed = {code_in(name)[0]: default for name, default, _ in rows(TEXT, "Setting")}

    assert listed == {
        field.name: f"`{field.default}`"
        for field in dataclasses.fields(DatabaseSettings)
    }


@pytest.mark.parametrize("row", DRIVERS, ids=lambda row: row[0])
def test_its_urls_name_drivers_that_the_extra_installs(row: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [extra] = re.findall(r"`unitwork\[(\w+)\]`", row[3])
    packages = " ".join(project["optional-dependencies"][extra])

    for is_async, cell in (True, row[1]), (False, row[2]):
        for url in map(make_url, code_in(cell)):
            dialect = url.get_dialect()
            kind = dialect.get_async_dialect_cls(url) if is_async else dialect
            driver = url.get_driver_name()
            assert kind.is_async is is_async
            assert driver == "pysqlite" or re.search(rf"\b{driver}\b", packages)


@pytest.mark.parametrize("row", [row for row in STATEMENTS if len(row) == 2])
def test_names_statements_that_outlive_a_transaction(row: list[str]) -> None:
    family = "mysql" if "max_statement_time" in row[0] else "postgresql"
    instead, write = (find_traces(family, sql, sql, None) for sql in row)

    assert instead
    assert all(not trace.is_certain for trace in write)


def test_takes_urls_engines_sessionmakers_and_functions(page: Page) -> None:
    main = page.run(up_to="Session class and session options")

    async def use(source: Any) -> int | None:
        db = AsyncDatabase(source)
        async with db.transaction() as session:
            found: int | None = await session.scalar(text("SELECT 1"))
        await db.engine.dispose()
        return found

    maker = main.async_sessionmaker(main.engine)
    for source in main.engine, maker, lambda: main.engine:
        assert asyncio.run(use(source)) == 1
    page.run()


def test_refuses_a_driver_of_the_other_kind_as_shown(page: Page, capsys: Any) -> None:
    page.run()

    assert capsys.readouterr().out.strip() in page.text


def test_takes_a_session_class_and_options(page: Page) -> None:
    main = page.run(up_to="Settings")

    async def use() -> tuple[bool, bool]:
        async with main.db.transaction() as session:
            found = isinstance(session, main.MySession), session.autoflush
        await main.db.dispose()
        return found

    assert asyncio.run(use()) == (True, False)
    page.run()


@pytest.mark.parametrize(("memory", "journal"), [(False, "wal"), (True, "memory")])
def test_other_users_of_the_engine_get_no_foreign_keys(
    page: Page, memory: bool, journal: str
) -> None:
    main = page.run()
    db = AsyncDatabase("sqlite+aiosqlite://") if memory else main.db

    async def pragmas() -> list[object]:
        names = "busy_timeout", "foreign_keys", "journal_mode"
        async with db.engine.connect() as connection:
            queries = [text(f"PRAGMA {name}") for name in names]
            found = [await connection.scalar(query) for query in queries]
        await db.dispose()
        return found

    assert asyncio.run(pragmas()) == [5000, 0, journal]


def test_a_database_in_memory_survives_dispose(page: Page) -> None:
    page.run()
    db = AsyncDatabase("sqlite+aiosqlite://")

    async def use() -> str | None:
        async with db.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE item (name TEXT)"))
        async with db.transaction() as session:
            await session.execute(text("INSERT INTO item VALUES ('still there')"))
        await db.dispose()
        async with db.transaction() as session:
            found: str | None = await session.scalar(text("SELECT name FROM item"))
        await db.dispose()
        return found

    assert asyncio.run(use()) == "still there"
