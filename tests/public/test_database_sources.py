"""`Database` and `AsyncDatabase`: what they are made from, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.asgi import call
from support.endpoints import serve_fastapi
from support.engines import make_maker, open_engine, over
from support.flavours import Flavour, Observer, only
from support.models import add_item, names
from unitwork import (
    AsyncDatabase,
    Database,
    DatabaseSettings,
    DBSessionMiddleware,
    UsageError,
)
from unitwork._unit.database_base import core_of

pytestmark = pytest.mark.anyio

KINDS: list[Any] = [AsyncDatabase, Database]
both = pytest.mark.parametrize("kind", KINDS)
one_of_each = only("sqlite3", "aiosqlite")


@pytest.fixture
async def engine2(flavour: Flavour) -> AsyncIterator[Any]:
    engine = open_engine(flavour)
    yield engine
    await over(flavour, engine).dispose()


def sync_engine(engine: Any) -> Any:
    return getattr(engine, "sync_engine", engine)


# What it can be given


def give_maker(flavour: Flavour, engine: Any) -> Any:
    return make_maker(flavour, engine)


def give_engine_by_callable(flavour: Flavour, engine: Any) -> Any:
    return lambda: engine


def give_maker_by_callable(flavour: Flavour, engine: Any) -> Any:
    maker = make_maker(flavour, engine)
    return lambda: maker


SOURCES = {
    "a URL as a string": lambda flavour, engine: flavour.url,
    "a URL": lambda flavour, engine: make_url(flavour.url),
    "an engine": lambda flavour, engine: engine,
    "a sessionmaker": give_maker,
    "a callable giving an engine": give_engine_by_callable,
    "a callable giving a sessionmaker": give_maker_by_callable,
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_stores_whatever_it_was_made_from(
    flavour: Flavour, observer: Observer, engine: Any, kind: str
) -> None:
    made = over(flavour, SOURCES[kind](flavour, engine))

    await made.work(add_item)

    assert observer.names() == ["one"]
    assert await made.work(names) == ["one"]
    await made.dispose()


@pytest.mark.parametrize("kind", list(SOURCES)[2:])
async def test_an_engine_that_is_given_is_the_engine(
    flavour: Flavour, engine: Any, kind: str
) -> None:
    made = over(flavour, SOURCES[kind](flavour, engine))

    assert sync_engine(made.db.engine) is sync_engine(engine)
    assert await made.work(Session.get_bind) is sync_engine(engine)


async def test_a_callable_is_asked_each_time(
    flavour: Flavour, engine: Any, engine2: Any
) -> None:
    answers = [engine]
    late = over(flavour, lambda: answers[-1])
    assert await late.work(Session.get_bind) is sync_engine(engine)

    answers.append(engine2)

    assert await late.work(Session.get_bind) is sync_engine(engine2)
    assert sync_engine(late.db.engine) is sync_engine(engine2)


@one_of_each
async def test_a_callable_is_not_asked_before_it_must(flavour: Flavour) -> None:
    def too_early() -> Any:
        raise LookupError

    late = over(flavour, too_early)
    DBSessionMiddleware(FastAPI(), late.db)

    with pytest.raises(LookupError):
        await late.work(add_item)


@one_of_each
async def test_a_callable_that_fails_leaves_no_unit_to_wait_for(
    flavour: Flavour,
) -> None:
    def fail() -> Any:
        raise LookupError

    late = over(flavour, fail)
    reply = await call(serve_fastapi(late, add_item), "POST", "/")
    with pytest.raises(LookupError):
        await late.work(add_item)

    assert isinstance(reply.error, LookupError)
    assert not core_of(late.db).open_units


async def test_a_sessionmaker_may_be_configured_anew(
    flavour: Flavour, engine: Any, engine2: Any
) -> None:
    maker = make_maker(flavour, engine)
    made = over(flavour, maker)
    assert await made.work(lambda session: session.autoflush) is True

    maker.configure(bind=engine2, autoflush=False)

    assert await made.work(lambda session: session.autoflush) is False
    assert await made.work(Session.get_bind) is sync_engine(engine2)
    assert sync_engine(made.db.engine) is sync_engine(engine2)


async def test_a_sessionmaker_may_get_its_engine_later(
    flavour: Flavour, observer: Observer, engine: Any
) -> None:
    maker = make_maker(flavour)
    made = over(flavour, maker)
    DBSessionMiddleware(FastAPI(), made.db)

    maker.configure(bind=engine)

    await made.work(add_item)
    assert observer.names() == ["one"]


@one_of_each
async def test_a_sessionmaker_without_an_engine_is_refused_when_it_is_used(
    flavour: Flavour,
) -> None:
    made = over(flavour, make_maker(flavour))

    with pytest.raises(UsageError, match="sessionmaker bound to an engine"):
        await made.work(add_item)


@one_of_each
async def test_the_options_of_a_sessionmaker_hold(
    flavour: Flavour, engine: Any
) -> None:
    maker = make_maker(flavour, engine, autoflush=False, info={"of": "the maker"})

    def look(session: Session) -> None:
        assert session.autoflush is False
        assert session.info == {"of": "the maker"}

    await over(flavour, maker).work(look)


@both
def test_says_what_it_is(kind: Any) -> None:
    db = kind(lambda: None, name="reports")

    assert repr(db) == f"<{kind.__name__} 'reports'>"
    assert db.name == "reports"
    assert db.settings == DatabaseSettings()


@one_of_each
async def test_two_of_them_may_share_an_engine(flavour: Flavour, engine: Any) -> None:
    one, two = over(flavour, engine), over(flavour, engine, name="two")

    await one.work(add_item)

    assert await two.work(names) == ["one"]


# What it refuses


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (AsyncDatabase, "sqlite:///x.db", r"async driver.*use sqlite\+aiosqlite"),
        (AsyncDatabase, "postgresql+psycopg2://h/d", r"asyncpg or postgresql\+psycopg"),
        (Database, "sqlite+aiosqlite:///x.db", "names an async driver; use AsyncData"),
        (Database, "postgresql+asyncpg://h/d", "names an async driver; use AsyncData"),
        (Database, "nonsense://h/d", r"can't be used: .*nonsense"),
        (AsyncDatabase, "nonsense+driver://h/d", r"can't be used: .*nonsense"),
        (Database, "not a url", "can't be used: "),
        (Database, "", "can't be used: "),
    ],
)
def test_a_url_that_can_not_work_is_refused_at_once(
    kind: Any, given: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        kind(given)


def test_a_refusal_does_not_show_the_password() -> None:
    with pytest.raises(UsageError) as caught:
        Database("postgresql+asyncpg://me:secret@host/db")

    assert "secret" not in str(caught.value)


@one_of_each
def test_the_other_flavours_engine_is_refused(flavour: Flavour, engine: Any) -> None:
    other: Any = Database if flavour.is_async else AsyncDatabase
    right = type(flavour.db).__name__

    for kind in list(SOURCES)[2:4]:
        with pytest.raises(UsageError, match=rf"^{other.__name__} .*; use {right}$"):
            other(SOURCES[kind](flavour, engine))


@one_of_each
def test_the_other_flavours_engine_is_refused_when_it_comes_late(
    flavour: Flavour, engine: Any
) -> None:
    other: Any = Database if flavour.is_async else AsyncDatabase
    late = other(lambda: engine)

    with pytest.raises(UsageError, match=f"use {type(flavour.db).__name__}"):
        _ = late.engine


@both
@pytest.mark.parametrize("wrong", [None, 42, object(), ["sqlite://"]])
def test_a_plain_object_is_refused(kind: Any, wrong: Any) -> None:
    with pytest.raises(
        UsageError, match=r"give a URL, an? .*engine, an? .*sessionmaker"
    ):
        kind(wrong)


@both
@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_that_is_none_is_refused(kind: Any, name: Any) -> None:
    with pytest.raises(UsageError, match=r"^name is .*; give a name"):
        kind(lambda: None, name=name)


@one_of_each
def test_options_of_an_engine_that_is_made_already_are_refused(
    flavour: Flavour, engine: Any
) -> None:
    with pytest.raises(UsageError, match=r"echo, pool_size: .* go with a URL"):
        over(flavour, engine, pool_size=3, echo=True)


@one_of_each
def test_a_session_class_beside_a_sessionmaker_is_refused(
    flavour: Flavour, engine: Any
) -> None:
    with pytest.raises(UsageError, match="has its own class_"):
        over(flavour, make_maker(flavour, engine), session_class=Session)
