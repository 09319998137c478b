"""Where the database tells no position, a client reads its own writes elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session

from support.asgi import call
from support.flavours import FLAVOURS, Flavour, kind_of
from support.models import add_item, create_tables, names
from support.replicated import SECRET
from unitwork import (
    AsyncDatabase,
    Database,
    DBSessionMiddleware,
    UsageError,
    current_unit,
    transactional,
)
from unitwork.replicas import SignedCookie

pytestmark = pytest.mark.anyio


def files(name: str, folder: Path) -> Flavour:
    """A database whose replica is another file, which nothing replicates to."""
    urls = []
    for file in ("primary.db", "replica.db"):
        engine = create_engine(f"sqlite:///{folder}/{file}")
        create_tables(engine)
        engine.dispose()
        urls.append(f"{FLAVOURS[name]}:///{folder}/{file}")
    return Flavour(name, urls[0], kind_of(name)(urls[0], replicas=urls[1:]))


@pytest.mark.parametrize("name", ["sqlite3", "aiosqlite"])
async def test_reads_come_from_the_replica_until_the_client_writes(
    name: str, tmp_path: Path
) -> None:
    flavour = files(name, tmp_path)
    tokens = []

    def write(session: Session) -> None:
        add_item(session)
        tokens.append(current_unit())

    def read(session: Session) -> list[str]:
        current_unit().read_after(tokens[0].token)
        return names(session)

    await flavour.work(write)
    assert await flavour.work(names, read_only=True) == []
    assert await flavour.work(read, read_only=True) == ["one"]
    await flavour.dispose()


@pytest.mark.parametrize("replicas", [None, []])
async def test_without_replicas_the_same_code_runs_and_sends_no_token(
    tmp_path: Path, replicas: list[str] | None
) -> None:
    db = Database(f"sqlite:///{tmp_path}/one.db", replicas=replicas)
    create_tables(db.engine)
    flavour = Flavour("sqlite3", "", db)
    app = FastAPI()
    carrier = SignedCookie(SECRET)
    app.add_middleware(DBSessionMiddleware, db=db, read_your_writes=carrier)
    app.post("/items")(flavour.endpoint(lambda session: add_item(session).id))
    read = transactional(read_only=True, replica=True)(flavour.endpoint(names))
    app.get("/items")(read)
    reply = await call(app, "POST", "/items")

    assert b"set-cookie" not in dict(reply.starts[0]["headers"])
    assert (await call(app, "GET", "/items")).json == ["one"]
    await flavour.dispose()


def test_a_replica_of_the_other_kind_is_refused() -> None:
    engine = create_engine("sqlite://")
    with pytest.raises(UsageError, match="give an async engine"):
        AsyncDatabase("sqlite+aiosqlite://", replicas=[engine])  # type: ignore[list-item]


REFUSED = "has the dialect sqlite, and one of its replicas postgresql"


def test_a_replica_of_another_dialect_is_refused() -> None:
    with pytest.raises(UsageError, match=REFUSED):
        Database("sqlite://", replicas=["postgresql+psycopg://db2/app"])


def test_replicas_that_are_known_later_are_refused_later() -> None:
    replicas: list[Engine] = []
    db = Database("sqlite://", replicas=lambda: replicas)
    replicas.append(create_engine("postgresql+psycopg://db2/app"))

    with pytest.raises(UsageError, match=REFUSED), db.transaction(read_only=True) as it:
        it.connection()
    db.dispose()


def test_a_primary_that_is_known_later_is_compared_later() -> None:
    engine = create_engine("sqlite:///items.db")
    db = Database(lambda: engine, replicas=["postgresql+psycopg://db2/app"])

    with pytest.raises(UsageError, match=REFUSED), db.transaction():
        pass


def test_mariadb_and_mysql_are_names_of_one_dialect() -> None:
    db = Database("mysql+pymysql://db1/app", replicas=["mariadb+pymysql://db2/app"])

    assert [each.usable for each in db.replica_status()] == [True]


@pytest.mark.parametrize("given", ["sqlite:///replica.db", [42], {"a": 1}])
def test_what_are_no_replicas_is_refused(given: object) -> None:
    with pytest.raises(UsageError, match="replicas "):
        Database("sqlite://", replicas=given)  # type: ignore[call-overload]


@pytest.mark.parametrize("url", ["", "app:secret@db2", "postgres://app:secret@db2/a"])
def test_the_url_of_a_replica_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(UsageError, match="the database URL can't be used") as caught:
        AsyncDatabase("postgresql+asyncpg://db1/app", replicas=[url])

    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
