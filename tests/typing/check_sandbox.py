"""What mypy and pyright know of sandboxes; never run.

Each `type: ignore` is a mistake that mypy has to find: an unused one is an error.
"""

from typing import Any, assert_type

from sqlalchemy import Connection, MetaData, create_engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from unitwork import AsyncDatabase, Database, UsageError
from unitwork.testing import Sandbox, SandboxError, sandbox

db = Database("sqlite://")
other = AsyncDatabase("sqlite+aiosqlite://")


def number(text: str) -> int:
    return len(text)


with sandbox(db, other, timeout=1.0, replicas=[create_engine("sqlite://")]) as box:
    assert_type(box, Sandbox[Session])
    assert_type(box.session, Session)
    assert_type(box.sync_session, Session)
    assert_type(box.session_of(other), AsyncSession)
    assert_type(box.headers, dict[str, str])
    assert_type(box.bind(number)("one"), int)
    box.bind(number)(1)  # type: ignore[arg-type]
    with box.allow() as nothing, box.shared():
        assert_type(nothing, None)
    box.check()


def create(connection: Connection) -> None: ...


sandbox(db, other, schema={db: MetaData(), "other": (create, "key")})
sandbox(db, schema=1)  # type: ignore[call-overload]
with sandbox(db, real=True, schema=MetaData()) as box:
    assert_type(box.keep(), list[str])
several: list[Database | AsyncDatabase] = [db, other]
with sandbox(*several) as any_box:
    assert_type(any_box.session_of(other), AsyncSession)


class MySession(Session): ...


with sandbox(Database("sqlite://", session_class=MySession)) as my_box:
    assert_type(my_box.session, MySession)


def with_the_fixture(sandbox: Sandbox, typed: Sandbox[AsyncSession]) -> None:
    assert_type(sandbox.session, Any)
    assert_type(typed.session, AsyncSession)


error: UsageError = SandboxError("closed")
sandbox("sqlite://")  # type: ignore[call-overload]


async def twice(number: int) -> int:
    return 2 * number


async def in_a_coroutine() -> None:
    async with sandbox(other) as box:
        assert_type(box.session, AsyncSession)
        assert_type(await box.bind(twice)(1), int)
