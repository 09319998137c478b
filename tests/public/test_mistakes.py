"""The usual mistakes: each error says what was found, and what to write instead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from support.asgi import call
from support.mistakes import Item, Owner, World, raised_by, said
from unitwork import AsyncDatabase, DBSessionMiddleware, current_unit

pytestmark = pytest.mark.anyio


Mistake = Callable[[World], Awaitable[str]]
MISTAKES: dict[str, tuple[Mistake, str, str]] = {}
"""By name: what is done, and the words for what was found and for what to write."""


def mistake(found: str, remedy: str) -> Callable[[Mistake], Mistake]:
    def add(made: Mistake) -> Mistake:
        MISTAKES[made.__name__] = made, found, remedy
        return made

    return add


# Dependencies


@mistake("coroutine object db.session", "write Depends(db.session), or await")
@pytest.mark.filterwarnings("ignore:coroutine")
async def the_dependency_is_called(world: World) -> str:
    made = world.db.session()

    def endpoint(session: AsyncSession = Depends(made)) -> None: ...  # type: ignore[arg-type]  # noqa: B008

    found = raised_by(lambda: world.app.get("/")(endpoint))
    made.close()
    return found


@mistake("there is no unit of work for database 'default'", "write Depends(db.session)")
async def the_current_session_as_a_dependency(world: World) -> str:
    return raised_by(lambda: Depends(world.db.current))  # type: ignore[arg-type]


@mistake("db.transaction is no dependency", "write Depends(db.session)")
async def a_block_as_a_dependency(world: World) -> str:
    def endpoint(session: Any = Depends(world.db.transaction)) -> None: ...  # noqa: B008

    return raised_by(lambda: world.app.get("/")(endpoint))


@mistake("db.transaction is no dependency", "open the block in the body")
async def a_sync_block_as_a_dependency(world: World) -> str:
    def endpoint(session: Any = Depends(world.sync_db.transaction)) -> None: ...  # noqa: B008

    return raised_by(lambda: world.app.get("/")(endpoint))


@mistake("AsyncDatabase.session belongs to no database", "write Depends(db.session)")
async def the_dependency_of_the_class(world: World) -> str:
    async def endpoint(session: Any = Depends(AsyncDatabase.session)) -> None: ...  # noqa: B008

    return await world.said_by(endpoint)


@mistake("db.session is no session", "Depends(db.session)]`")
async def the_dependency_as_a_default(world: World) -> str:
    async def endpoint(session=world.db.session) -> None:  # type: ignore[no-untyped-def]
        session.add(Owner())

    return await world.said_by(endpoint)


@mistake("and has no 'scalar'", "db.current.scalar")
async def the_dependency_as_a_session(world: World) -> str:
    async def endpoint() -> Any:
        return await world.db.session.scalar(select(1))  # type: ignore[attr-defined]

    return await world.said_by(endpoint)


@mistake("a session was called", "leave out the ()")
async def the_current_session_is_called(world: World) -> str:
    async def endpoint() -> None:
        world.db.current()  # type: ignore[operator]

    return await world.said_by(endpoint)


@mistake("a session was called", "leave out the ()")
async def the_current_session_is_called_sync(world: World) -> str:
    def endpoint() -> None:
        world.sync_db.current()  # type: ignore[operator]

    return await world.said_by(endpoint)


# await


@mistake(
    "'coroutine' object has no attribute 'scalars'", "(await session.execute(...))."
)
@pytest.mark.filterwarnings("ignore:coroutine")
async def no_await_before_a_result(world: World) -> str:
    async def endpoint() -> Any:
        return world.db.current.execute(select(Item)).scalars()  # type: ignore[attr-defined]

    return await world.said_by(endpoint)


@mistake("can't be used in 'await' expression", "leave `await` out")
async def await_with_a_sync_session(world: World) -> str:
    def body() -> Any:
        return world.sync_db.current.execute(select(1))

    async def endpoint() -> None:
        await asyncio.to_thread(body)
        await world.sync_db.current.execute(select(1))  # type: ignore[misc]

    return await world.said_by(endpoint)


@mistake(
    "the blocks of a Database are sync", "write `with db.transaction() as session:`"
)
async def async_with_for_a_sync_block(world: World) -> str:
    async def endpoint() -> None:
        async with world.sync_db.transaction():  # type: ignore[attr-defined]
            pass

    return await world.said_by(endpoint)


@mistake(
    "the blocks of an AsyncDatabase are async", "write `async with db.transaction()"
)
async def with_for_an_async_block(world: World) -> str:
    async def endpoint() -> None:
        with world.db.transaction():  # type: ignore[attr-defined]
            pass

    return await world.said_by(endpoint)


@mistake("is a coroutine function", "use AsyncDatabase")
async def a_coroutine_function_for_a_sync_database(world: World) -> str:
    async def work(session: Any) -> None: ...

    return raised_by(lambda: world.sync_db.run(work))


@mistake("is no coroutine function", "make it `async def`, or use Database")
async def a_plain_function_for_an_async_database(world: World) -> str:
    async def endpoint() -> None:
        await world.db.run(lambda session: None)  # type: ignore[arg-type,return-value]

    return await world.said_by(endpoint)


# Loading


@mistake("greenlet_spawn has not been called", "with selectinload() in the statement")
async def a_relationship_is_loaded_without_await(world: World) -> str:
    async def endpoint() -> Any:
        owner = await world.db.current.get_one(Owner, 1)
        return len(owner.items)

    return await world.said_by(endpoint)


@mistake("no running event loop", "Database and its Session in a `def` endpoint")
async def an_async_session_in_a_def_endpoint(world: World) -> str:
    def endpoint() -> Any:
        return world.db.current.sync_session.get(Owner, 1)

    return await world.said_by(endpoint)


@mistake(
    "is not bound to a Session; lazy load operation", "load what the response needs"
)
async def a_relationship_is_loaded_after_the_unit(world: World) -> str:
    def endpoint() -> Any:
        with world.sync_db.transaction() as session:
            owner = session.get_one(Owner, 1)
        world.sync_db.current.get_one(Owner, 1)
        return len(owner.items)

    return await world.said_by(endpoint)


# Tasks


@mistake(
    "concurrent operations are not permitted", "give each its own: `async with db."
)
async def a_session_in_gather(world: World) -> str:
    async def endpoint() -> None:
        session = world.db.current
        await asyncio.gather(*(session.scalar(select(1)) for _ in range(2)))

    return await world.said_by(endpoint)


@mistake(
    "concurrent operations are not permitted", "give each its own: `async with db."
)
async def a_session_in_two_tasks(world: World) -> str:
    async def endpoint() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(world.db.current.scalar(select(1)))  # type: ignore[arg-type]

    return await world.said_by(endpoint)


@mistake("is using the session of db.override()", "the one before has ended")
async def override_under_concurrent_requests(world: World) -> str:
    async def endpoint() -> None:
        await world.db.current.scalar(select(1))

    world.app.get("/")(endpoint)
    async with AsyncSession(world.db.engine) as session, asyncio.timeout(10):
        with world.db.override(session):
            both = [asyncio.create_task(call(world.app, "GET", "/")) for _ in range(2)]
            replies = await asyncio.gather(*both)
    return "\n".join(said(reply.error) for reply in replies)


# Endings


@mistake(
    "has ended (committed: status 200)", "`async with db.transaction() as session:`"
)
async def the_session_in_a_background_task(world: World) -> str:
    async def endpoint(tasks: BackgroundTasks) -> None:
        await world.db.current.scalar(select(1))
        tasks.add_task(world.db.current.scalar, select(1))

    return await world.said_by(endpoint)


@mistake("A transaction is already begun on this Session", "`session.begin_nested()`")
async def begin_after_a_statement(world: World) -> str:
    async def endpoint() -> None:
        await world.db.current.scalar(select(1))
        async with world.db.current.begin():
            pass

    return await world.said_by(endpoint)


@mistake("the work of this unit is lost: IntegrityError", "`session.begin_nested()`")
async def an_error_of_a_flush_is_swallowed(world: World) -> str:
    async def endpoint() -> None:
        world.db.current.add(Owner(id=1))
        with contextlib.suppress(IntegrityError):
            await world.db.current.flush()

    return await world.said_by(endpoint)


@mistake("can't be entered twice", "call transaction() again")
async def a_block_is_entered_twice(world: World) -> str:
    async def endpoint() -> None:
        block = world.db.transaction()
        for _ in range(2):
            async with block:
                pass

    return await world.said_by(endpoint)


# Wiring


@mistake(
    "no unit of work for database 'other'", "app.add_middleware(DBSessionMiddleware"
)
async def a_database_that_the_middleware_does_not_have(world: World) -> str:
    other = AsyncDatabase("sqlite+aiosqlite://", name="other")

    async def endpoint() -> None:
        _ = other.current

    return await world.said_by(endpoint)


@mistake(
    "there is no unit of work here", "app.add_middleware(DBSessionMiddleware, db=db)"
)
async def no_middleware(world: World) -> str:
    world.app.user_middleware.clear()

    async def endpoint() -> None:
        current_unit()

    return await world.said_by(endpoint)


@mistake("has no attribute 'get'", "`app.add_middleware(DBSessionMiddleware, db=db)`")
async def the_wrapped_application_as_the_application(world: World) -> str:
    app: Any = DBSessionMiddleware(world.app, [world.db, world.sync_db])

    return raised_by(lambda: app.get("/"))


@mistake("db is an object of type sqlalchemy.ext.asyncio", "give the sessionmaker")
async def a_session_in_place_of_a_database(world: World) -> str:
    async with AsyncSession(world.db.engine) as session:
        world.app.user_middleware.clear()
        world.app.add_middleware(DBSessionMiddleware, db=session)  # type: ignore[arg-type]
        return await world.said_by(lambda: None)


@mistake("must be callable", "")
async def a_hook_is_called_in_place_of_given(world: World) -> str:
    async def endpoint() -> None:
        current_unit().on_commit(print())  # type: ignore[func-returns-value,arg-type]

    return await world.said_by(endpoint)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_mistake_is_answered_with_its_remedy(world: World, name: str) -> None:
    made, found, remedy = MISTAKES[name]

    message = " ".join((await made(world)).split())

    assert found in message
    assert remedy in message
