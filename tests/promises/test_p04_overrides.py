"""P4: session classes with methods of their own; what they leave open is ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import create_engine, event, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.exc import FlushError

from support.asgi import call
from support.databases import check_nothing_is_left
from support.endpoints import serve_fastapi
from support.flavours import FEW, Flavour, Observer, only
from support.models import Item, add_item
from unitwork import (
    AsyncDatabase,
    Database,
    Outcome,
    SessionEndedError,
    UnexpectedRollbackError,
    UnitOfWork,
    current_unit,
)

pytestmark = pytest.mark.anyio


class CommitFlushes(Session):
    def commit(self) -> None:
        self.flush()


class CommitDoesNothing(Session):
    def commit(self) -> None:
        pass


class CommitIsNeverAwaited(Session):
    async def commit(self) -> None:  # type: ignore[override]
        raise AssertionError


class CommitBeginsAnew(Session):
    def commit(self) -> None:
        super().commit()
        self.begin()


class CommitRollsBack(Session):
    """As one does that hides what a failed COMMIT has raised."""

    def commit(self) -> None:
        with suppress(LookupError):
            self.rollback()
            raise LookupError


class CommitDropsAll(Session):
    def commit(self) -> None:
        transaction = self.get_transaction()
        assert transaction is not None
        transaction.close()


class RollbackDoesNothing(Session):
    def rollback(self) -> None:
        pass


class RollbackIsNeverAwaited(Session):
    async def rollback(self) -> None:  # type: ignore[override]
        raise AssertionError


class RollbackFails(Session):
    def rollback(self) -> None:
        raise LookupError


class CloseDoesNothing(Session):
    def close(self) -> None:
        pass


class CloseIsNeverAwaited(Session):
    async def close(self) -> None:  # type: ignore[override]
        raise AssertionError


class FlushDoesNothing(Session):
    def flush(self, objects: Any = None) -> None:
        pass


class FlushSwallows(Session):
    def flush(self, objects: Any = None) -> None:
        with suppress(IntegrityError):
            super().flush(objects)


STORING = [CommitFlushes, CommitDoesNothing, CommitIsNeverAwaited, CommitBeginsAnew]
UNDOING = [RollbackDoesNothing, RollbackIsNeverAwaited, RollbackFails]
CLOSING = [CloseDoesNothing, CloseIsNeverAwaited]


@asynccontextmanager
async def served_by(
    flavour: Flavour, session_class: type[Session]
) -> AsyncIterator[Flavour]:
    """The same database, with sessions of *session_class*."""
    options: dict[str, Any] = {"session_class": session_class}
    if flavour.is_async:
        options = {"session_options": {"sync_session_class": session_class}}
    ours = flavour.another(**options)
    yield ours
    await check_nothing_is_left(ours)
    await ours.dispose()


@FEW
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("session_class", STORING)
async def test_what_an_overridden_commit_leaves_open_is_committed(
    flavour: Flavour, observer: Observer, session_class: type[Session], by_hand: bool
) -> None:
    hand = (lambda session: session.flush()) if not by_hand else commit_by_hand

    def body(session: Session) -> None:
        session.add(Item(name="one"))
        hand(session)

    async with served_by(flavour, session_class) as ours:
        reply = await call(serve_fastapi(ours, body), "POST", "/")

    assert (reply.status, observer.names()) == (200, ["one"])


def commit_by_hand(session: Session) -> None:
    result: Any = session.commit()  # type: ignore[func-returns-value]  # of one class
    if result is not None:
        result.close()


@FEW
@pytest.mark.parametrize("session_class", [CommitRollsBack, CommitDropsAll])
async def test_a_commit_that_has_rolled_back_is_no_success(
    flavour: Flavour, observer: Observer, session_class: type[Session]
) -> None:
    done: list[str] = []

    def body(session: Session) -> None:
        add_item(session)
        current_unit().on_commit(done.append, "committed")
        current_unit().on_rollback(done.append, "rolled back")

    async with served_by(flavour, session_class) as ours:
        with pytest.raises(UnexpectedRollbackError):
            await ours.work(body)

    assert (done, observer.names()) == (["rolled back"], [])


@FEW
@pytest.mark.parametrize("session_class", UNDOING)
async def test_what_an_overridden_rollback_leaves_open_is_rolled_back(
    flavour: Flavour, observer: Observer, session_class: type[Session]
) -> None:
    units: list[UnitOfWork] = []

    def body(session: Session) -> None:
        units.append(current_unit())
        add_item(session)
        raise KeyError

    async with served_by(flavour, session_class) as ours:
        with pytest.raises(KeyError):
            await ours.work(body)

    assert (units[0].outcome, observer.names()) == (Outcome.ROLLED_BACK, [])


@FEW
@pytest.mark.parametrize("session_class", CLOSING)
async def test_an_overridden_close_keeps_no_session_usable(
    flavour: Flavour, observer: Observer, session_class: type[Session]
) -> None:
    kept: list[Session] = []

    def body(session: Session) -> None:
        kept.append(session)
        add_item(session)

    async with served_by(flavour, session_class) as ours:
        await ours.work(body)

    assert observer.names() == ["one"]
    with pytest.raises(SessionEndedError):
        add_item(kept[0], "two")


@FEW
async def test_a_flush_that_does_nothing_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    async with served_by(flavour, FlushDoesNothing) as ours:
        with pytest.raises(FlushError):
            await ours.work(lambda session: session.add(Item(name="one")))

    assert observer.names() == []


@FEW
async def test_a_flush_that_swallows_its_failure_is_no_success(
    flavour: Flavour, observer: Observer
) -> None:
    def body(session: Session) -> None:
        add_item(session, "two")
        session.add(Item(name="two"))

    async with served_by(flavour, FlushSwallows) as ours:
        with pytest.raises(Exception, match=r"(?i)rolled back|is lost"):
            await ours.work(body)

    assert observer.names() == []


# Async session classes


class Own(Session):
    pass


class CommitOnlyFlushes(AsyncSession):
    async def commit(self) -> None:
        await self.flush()


class WithAttribute(AsyncSession):
    sync_session_class = Own


class WithArgument(AsyncSession):
    def __init__(self, bind: Any = None, **options: Any) -> None:
        super().__init__(bind, sync_session_class=Own, **options)


class WithOverride(AsyncSession):
    def __init__(self, bind: Any = None, **options: Any) -> None:
        super().__init__(bind, **{**options, "sync_session_class": Own})


class WithListener(WithArgument):
    """It listens to its sync session before it is given to the unit."""

    def __init__(self, bind: Any = None, **options: Any) -> None:
        super().__init__(bind, **options)
        event.listen(self.sync_session, "before_flush", lambda *args: None)


OWN = [WithAttribute, WithArgument, WithOverride, WithListener]
own = pytest.mark.parametrize("session_class", OWN)
MAKES: dict[str, Callable[[str, type[AsyncSession]], AsyncDatabase]] = {
    "session_class": lambda url, kind: AsyncDatabase(url, session_class=kind),
    "sessionmaker": lambda url, kind: AsyncDatabase(
        async_sessionmaker(create_async_engine(url), class_=kind)
    ),
    "sync_session_class": lambda url, kind: AsyncDatabase(
        async_sessionmaker(create_async_engine(url), sync_session_class=Own)
    ),
}
made = pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)


@only("aiosqlite")
@made
@own
async def test_a_sync_session_class_of_its_own_works_and_is_fenced(
    flavour: Flavour, observer: Observer, make: Any, session_class: type[AsyncSession]
) -> None:
    db = make(flavour.url, session_class)

    for name in ("one", "two"):
        async with db.transaction() as session:
            assert isinstance(session.sync_session, Own)
            session.add(Item(name=name))
            await session.close()
    with pytest.raises(SessionEndedError):
        await session.scalar(select(Item.name))

    assert observer.names() == ["one", "two"]
    await db.engine.dispose()


@only("aiosqlite")
@own
async def test_its_hooks_go_by_what_became_of_the_work(
    flavour: Flavour, observer: Observer, session_class: type[AsyncSession]
) -> None:
    db, done = AsyncDatabase(flavour.url, session_class=session_class), list[str]()

    async with db.transaction() as session:
        current_unit().on_commit(done.append, "committed")
        session.add(Item(name="one"))
        await session.rollback()

    assert (done, observer.names()) == ([], [])
    await db.engine.dispose()


@only("aiosqlite")
async def test_an_async_commit_that_only_flushes_is_committed_by_the_unit(
    flavour: Flavour, observer: Observer
) -> None:
    db = AsyncDatabase(flavour.url, session_class=CommitOnlyFlushes)

    async with db.transaction() as session:
        session.add(Item(name="one"))
        await session.commit()
        assert observer.names() == []

    assert observer.names() == ["one"]
    await db.engine.dispose()


@only("aiosqlite")
async def test_an_argument_that_is_wrong_is_still_an_error(flavour: Flavour) -> None:
    options = {"no_such_option": True}
    db = AsyncDatabase(flavour.url, session_options=options)

    with pytest.raises(TypeError, match="no_such_option"):
        async with db.transaction():
            pass


@only("sqlite3")
async def test_a_sessionmaker_with_a_class_of_its_own_is_committed(
    flavour: Flavour, observer: Observer
) -> None:
    maker = sessionmaker(create_engine(flavour.url), class_=CommitFlushes)
    ours = Flavour(flavour.name, flavour.url, Database(maker))

    await ours.work(lambda session: session.add(Item(name="one")))

    assert observer.names() == ["one"]
    ours.db.engine.dispose()
