"""What ends the transaction around a sandbox fails the test, and names itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from support.flavours import Flavour, Observer, everywhere, only
from support.models import add_item
from support.sandboxes import WAYS, entered
from unitwork import UnitworkError
from unitwork.testing import SandboxError

pytestmark = pytest.mark.anyio


async def escaping(flavour: Flavour, way: str, how: Callable[[Session], Any]) -> None:
    """A test that swallows what its unit raises."""

    def work(session: Session) -> None:
        add_item(session)
        how(session)

    async with entered(way, flavour.db):
        with pytest.raises(UnitworkError):
            await flavour.work(work)


@everywhere
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK"])
async def test_an_end_by_sql(flavour: Flavour, way: str, sql: str) -> None:
    with pytest.raises(SandboxError, match=rf"transaction\(\) block.*{sql}"):
        await escaping(flavour, way, lambda session: session.execute(text(sql)))


@everywhere
async def test_an_end_with_another_beginning(flavour: Flavour) -> None:
    def how(session: Session) -> None:
        session.execute(text("COMMIT"))
        session.execute(text("BEGIN"))

    with pytest.raises(SandboxError, match=r"transaction\(\) block"):
        await escaping(flavour, "with", how)


@only("psycopg", "pymysql", "sqlite3")
@pytest.mark.parametrize("method", ["commit", "rollback"])
async def test_an_end_by_the_driver(flavour: Flavour, method: str) -> None:
    def how(session: Session) -> None:
        getattr(session.connection().connection.driver_connection, method)()

    with pytest.raises(SandboxError, match=r"transaction\(\) block"):
        await escaping(flavour, "with", how)


@only("pymysql", "asyncmy")
async def test_a_statement_that_commits_by_itself(flavour: Flavour) -> None:
    def how(session: Session) -> None:
        session.execute(text("ALTER TABLE item COMMENT ''"))

    with pytest.raises(SandboxError, match="ALTER TABLE"):
        await escaping(flavour, "with", how)


@everywhere
async def test_nothing_works_after_it(flavour: Flavour) -> None:
    with pytest.raises(SandboxError):  # noqa: PT012  # the end of the sandbox raises
        async with entered("with", flavour.db):
            with pytest.raises(UnitworkError):
                await flavour.work(lambda session: session.execute(text("COMMIT")))
            with pytest.raises(SandboxError, match="has ended the transaction"):
                await flavour.work(add_item)


@only("sqlite3", "psycopg", "asyncpg", "pymysql")
async def test_an_error_of_the_test_comes_first(flavour: Flavour) -> None:
    with pytest.raises(LookupError) as raised:  # noqa: PT012  # as above
        async with entered("with", flavour.db):
            with pytest.raises(UnitworkError):
                await flavour.work(lambda session: session.execute(text("COMMIT")))
            raise LookupError

    assert "has ended the transaction" in raised.value.__notes__[0]


@everywhere
async def test_the_next_sandbox_is_sound(flavour: Flavour, observer: Observer) -> None:
    with pytest.raises(SandboxError):
        await escaping(flavour, "with", lambda session: session.execute(text("COMMIT")))
    before = observer.names()
    async with entered("with", flavour.db):
        await flavour.work(lambda session: add_item(session, "two"))

    assert observer.names() == before


@everywhere
async def test_a_connection_of_the_engine_itself(flavour: Flavour) -> None:
    engine = getattr(flavour.db.engine, "sync_engine", flavour.db.engine)

    async def connect_in_a_sandbox() -> None:
        async with entered("with", flavour.db):
            with pytest.raises(SandboxError):
                await greenlet_spawn(engine.connect)

    with pytest.raises(SandboxError, match=r"past its sandbox.*db\.engine"):
        await connect_in_a_sandbox()


@everywhere
async def test_that_engine_connects_again_after_the_sandbox(flavour: Flavour) -> None:
    engine = getattr(flavour.db.engine, "sync_engine", flavour.db.engine)
    async with entered("with", flavour.db):
        await flavour.work(add_item)

    connection = await greenlet_spawn(engine.connect)

    await greenlet_spawn(connection.close)
