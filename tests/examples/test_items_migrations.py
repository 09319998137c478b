"""The items application migrates with Alembic, on its own engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from support.manual import ROOT
from support.migrating import alembic
from support.pages import postgresql

CONFIG = f"alembic -c {ROOT / 'examples/items/alembic.ini'}"


async def tables(url: str) -> set[str]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await engine.dispose()
    return set(found)


async def owners(url: str) -> list[Any]:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT id, name FROM owners"))).all()
    await engine.dispose()
    return [tuple(row) for row in found]


def check(url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("DATABASE_URL", url)
    alembic(f"{CONFIG} upgrade head", "examples")
    alembic(f"{CONFIG} check", "examples")  # fails if a model has changed since

    assert asyncio.run(tables(url)) == {"alembic_version", "items", "owners"}
    assert asyncio.run(owners(url)) == [(1, "default owner")]

    alembic(f"{CONFIG} downgrade base", "examples")
    assert asyncio.run(tables(url)) == {"alembic_version"}


def test_migrates_on_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(f"sqlite+aiosqlite:///{tmp_path}/items.db", monkeypatch)


def test_migrates_on_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgresql("asyncpg") as url:
        check(url, monkeypatch)
