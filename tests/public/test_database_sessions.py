"""`Database` and `AsyncDatabase`: their sessions, and the events of those."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, func, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from sqlmodel import Session as SQLModelSession
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession as AsyncSQLModelSession

from support.engines import make_maker, over
from support.flavours import ASYNC, SYNC, Flavour, Observer, only
from support.models import Item, add_item

pytestmark = pytest.mark.anyio

one_of_each = only("sqlite3", "aiosqlite")


# Its sessions


class OurSession(Session):
    def shout(self, name: str) -> None:
        add_item(self, name.upper())


class OurAsyncSession(AsyncSession):
    sync_session_class = OurSession

    async def shout(self, name: str) -> None:
        await self.run_sync(OurSession.shout, name)


@only(*SYNC)
async def test_sessions_are_of_the_session_class(
    flavour: Flavour, observer: Observer
) -> None:
    ours = flavour.another(session_class=OurSession)

    def body(session: Session) -> None:
        assert isinstance(session, OurSession)
        session.shout("loud")

    await ours.work(body)
    await ours.dispose()

    assert observer.names() == ["LOUD"]


@only(*ASYNC)
async def test_async_sessions_are_of_the_session_class(
    flavour: Flavour, observer: Observer
) -> None:
    ours = flavour.another(session_class=OurAsyncSession)

    async with ours.db.transaction() as session:
        assert isinstance(session, OurAsyncSession)
        assert isinstance(session.sync_session, OurSession)
        await session.shout("loud")
    await ours.dispose()

    assert observer.names() == ["LOUD"]


@only(*SYNC)
async def test_sessions_of_sqlmodel_can_exec(flavour: Flavour) -> None:
    ours = flavour.another(session_class=SQLModelSession)

    def body(session: Any) -> list[str]:
        add_item(session)
        return list(session.exec(select(Item.name)))

    assert await ours.work(body) == ["one"]
    await ours.dispose()


@only(*ASYNC)
async def test_async_sessions_of_sqlmodel_can_exec(flavour: Flavour) -> None:
    ours = flavour.another(session_class=AsyncSQLModelSession)

    async with ours.db.transaction() as session:
        session.add(Item(name="one"))
        assert list(await session.exec(select(Item.name))) == ["one"]
    await ours.dispose()


@only(*SYNC)
async def test_a_sessionmaker_of_sqlmodels_sessions_will_do(
    flavour: Flavour, engine: Any
) -> None:
    made = over(flavour, sessionmaker(engine, class_=SQLModelSession))

    def body(session: Any) -> int:
        add_item(session)
        return int(session.exec(select(func.count(Item.id))).one())

    assert await made.work(body) == 1


@pytest.mark.parametrize("source", ["url", "engine", "maker"])
async def test_the_session_options_hold(
    flavour: Flavour, engine: Any, source: str
) -> None:
    given = {
        "url": flavour.url,
        "engine": engine,
        "maker": make_maker(flavour, engine, autoflush=True, expire_on_commit=True),
    }
    made = over(
        flavour,
        given[source],
        session_options={"autoflush": False, "info": {"ours": 1}},
    )

    def look(session: Session) -> None:
        assert (session.autoflush, session.info) == (False, {"ours": 1})

    await made.work(look)
    await made.dispose()


@one_of_each
async def test_sessions_do_not_expire_on_commit_unless_asked_to(
    flavour: Flavour,
) -> None:
    options = {"expire_on_commit": True}
    expiring = flavour.another(session_options=options)

    def item_is_expired(session: Session) -> bool:
        item = add_item(session)
        session.commit()
        return "name" not in item.__dict__

    assert await flavour.work(item_is_expired) is False
    with pytest.raises(Exception, match="UNIQUE"):
        await flavour.work(item_is_expired)
    await flavour.work(lambda session: session.execute(text("DELETE FROM item")))
    assert await expiring.work(item_is_expired) is True
    await expiring.dispose()


# Events


@only(*SYNC)
async def test_events_of_the_session_class_are_heard(flavour: Flavour) -> None:
    class Heard(Session):
        pass

    heard: list[str] = []
    ours = flavour.another(session_class=Heard)
    event.listen(Heard, "before_flush", lambda *args: heard.append("early"))
    await ours.work(add_item)
    event.listen(Heard, "after_commit", lambda session: heard.append("late"))
    await ours.work(partial(add_item, name="two"))
    await ours.dispose()

    assert heard == ["early", "early", "late"]


@only(*ASYNC)
async def test_events_of_the_sync_session_class_are_heard(flavour: Flavour) -> None:
    class Heard(Session):
        pass

    class AsyncHeard(AsyncSession):
        sync_session_class = Heard

    heard: list[str] = []
    ours = flavour.another(session_class=AsyncHeard)
    event.listen(Heard, "before_flush", lambda *args: heard.append("early"))
    await ours.work(add_item)
    event.listen(Heard, "after_commit", lambda session: heard.append("late"))
    await ours.work(partial(add_item, name="two"))
    await ours.dispose()

    assert heard == ["early", "early", "late"]


@only(*SYNC)
async def test_events_of_a_sessionmaker_are_heard(
    flavour: Flavour, engine: Any
) -> None:
    heard: list[str] = []
    maker = sessionmaker(engine)
    made = over(flavour, maker)
    event.listen(maker, "before_flush", lambda *args: heard.append("early"))
    await made.work(add_item)
    event.listen(maker, "after_commit", lambda session: heard.append("late"))
    await made.work(partial(add_item, name="two"))

    assert heard == ["early", "early", "late"]


@only(*ASYNC)
async def test_events_of_a_sessionmakers_sync_session_class_are_heard(
    flavour: Flavour, engine: Any
) -> None:
    class Heard(Session):
        pass

    heard: list[str] = []
    made = over(flavour, async_sessionmaker(engine, sync_session_class=Heard))
    event.listen(Heard, "after_commit", lambda session: heard.append("commit"))
    await made.work(add_item)

    assert heard == ["commit"]
