"""SQLite: pragmas, and files that can only be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, only
from support.models import Child, add_item, names
from support.pages import statements
from support.sqlite import serve_inside
from unitwork import DatabaseSettings

pytestmark = [pytest.mark.anyio, only("sqlite3", "aiosqlite")]

MEMORY = {"sqlite3": "sqlite://", "aiosqlite": "sqlite+aiosqlite://"}


def pragmas(session: Session) -> dict[str, object]:
    asked = "foreign_keys", "busy_timeout", "journal_mode"
    return {name: session.scalar(text(f"PRAGMA {name}")) for name in asked}


async def test_a_file_is_given_good_pragmas(flavour: Flavour) -> None:
    assert await flavour.work(pragmas) == {
        "foreign_keys": 1,
        "busy_timeout": 5000,
        "journal_mode": "wal",
    }


async def test_foreign_keys_are_enforced(flavour: Flavour, observer: Observer) -> None:
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        await flavour.work(lambda session: session.add(Child(parent_id=1)))

    assert observer.children() == 0


async def test_without_the_defaults_all_is_left_alone(flavour: Flavour) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))

    with statements(plain.db.engine) as sent:
        found = await plain.work(pragmas)
    await plain.dispose()

    assert (found["foreign_keys"], found["journal_mode"]) == (0, "delete")
    assert not [sql for sql in sent if sql.startswith("BEGIN")]


async def test_an_engine_of_the_users_own_is_left_alone(flavour: Flavour) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    given = Flavour(flavour.name, flavour.url, type(flavour.db)(plain.db.engine))

    found = await given.work(pragmas)
    await plain.dispose()

    assert (found["foreign_keys"], found["journal_mode"]) == (0, "delete")


async def test_a_connection_that_can_not_be_set_up_is_not_left_open(
    flavour: Flavour, tmp_path: Path
) -> None:
    (tmp_path / "no.db").write_text("this is no database at all" * 100)
    broken = type(flavour.db)(flavour.url.replace("test.db", "no.db"))

    with pytest.raises(Exception, match="not a database"):
        await Flavour(flavour.name, flavour.url, broken).work(names)

    assert broken.pool_status().checked_out == 0


async def busy_timeout(flavour: Flavour, url: str, **options: Any) -> object:
    database = type(flavour.db)(url, **options)
    patient = Flavour(flavour.name, url, database)
    found = await patient.work(pragmas)
    await patient.dispose()
    return found["busy_timeout"]


async def test_the_users_own_timeout_counts(flavour: Flavour) -> None:
    in_arguments = {"connect_args": {"timeout": 30}}

    assert await busy_timeout(flavour, flavour.url, **in_arguments) == 30_000
    assert await busy_timeout(flavour, f"{flavour.url}?timeout=20") == 20_000


def read_only(flavour: Flavour, tmp_path: Path, query: str) -> Flavour:
    """The file of *flavour*, with *query* in its URI."""
    scheme = MEMORY[flavour.name].partition(":")[0]
    url = f"{scheme}:///file:{tmp_path}/test.db?{query}&uri=true"
    return Flavour(flavour.name, url, type(flavour.db)(url))


@pytest.mark.parametrize("query", ["mode=ro", "immutable=1"])
async def test_a_file_that_is_read_only_can_be_read(
    flavour: Flavour, tmp_path: Path, query: str
) -> None:
    plain = flavour.another(settings=DatabaseSettings(sqlite_defaults=False))
    await plain.work(add_item)
    await plain.dispose()
    readable = read_only(flavour, tmp_path, query)

    assert await readable.work(names) == ["one"]
    for method in ("GET", "POST"):
        reply = await serve_inside(readable, method, names, names)
        assert (reply.status, reply.error) == (200, None)
    with pytest.raises(OperationalError, match="readonly"):
        await readable.work(add_item)

    await readable.dispose()


async def test_a_file_that_is_read_only_may_have_a_write_ahead_log(
    flavour: Flavour, tmp_path: Path
) -> None:
    await flavour.work(add_item)
    readable = read_only(flavour, tmp_path, "mode=ro")

    assert await readable.work(names) == ["one"]

    await readable.dispose()
