"""The hook of the test kit: units connect elsewhere, by the context of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from support.models import Item, add_item, create_tables
from unitwork import Database, DBSessionMiddleware
from unitwork._session.database_core import DatabaseCore
from unitwork._session.factory import SessionFactory
from unitwork._session.redirection import redirection
from unitwork._unit.database_base import core_of

elsewhere: ContextVar[SessionFactory | None] = ContextVar("elsewhere", default=None)


def by_context(database: DatabaseCore) -> SessionFactory:
    return elsewhere.get() or database.own_factory


def engine_of(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")
    create_tables(engine)
    return engine


def names(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(select(Item.name)))


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Engine]:
    engine = engine_of(tmp_path / "there.db")
    yield engine
    engine.dispose()


@pytest.fixture(params=["engine", "sessionmaker"])
def db(
    request: pytest.FixtureRequest, tmp_path: Path, there: Engine
) -> Iterator[Database]:
    engine = engine_of(tmp_path / "here.db")
    db = Database(engine if request.param == "engine" else sessionmaker(engine))
    core = core_of(db)
    factory = core.factory_for(lambda engine: there)
    core.redirect = by_context
    token = elsewhere.set(factory)
    yield db
    elsewhere.reset(token)
    engine.dispose()


def test_units_connect_elsewhere(db: Database, there: Engine) -> None:
    with db.transaction() as session:
        add_item(session)

    assert names(there) == ["one"]
    assert db.engine is there


def test_units_of_another_context_do_not(db: Database, there: Engine) -> None:
    elsewhere.set(None)
    with db.transaction() as session:
        add_item(session)

    assert (names(there), names(db.engine)) == ([], ["one"])


def test_a_request_brings_its_context(
    db: Database, there: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = elsewhere.get()
    elsewhere.set(None)
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=db)

    injected = Depends(db.session)

    @app.post("/")
    def create(session: Session = injected) -> None:
        add_item(session)

    @contextmanager
    def around() -> Iterator[None]:
        token = elsewhere.set(factory)
        yield
        elsewhere.reset(token)

    def enter(scope: object) -> object:
        return None if elsewhere.get() else around()

    monkeypatch.setattr(redirection, "enter", enter)
    assert TestClient(app).post("/").status_code == 200
    assert (names(there), names(core_of(db).own_factory.engine)) == (["one"], [])
