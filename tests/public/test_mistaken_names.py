"""Names that a database, or the state of a request, does not have: what to write."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from support.asgi import call
from support.mistakes import World
from unitwork import AsyncDatabase, Database, DBSessionMiddleware, UsageError

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", [AsyncDatabase, Database])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("add", "write db.current.add in what the endpoint calls"),
        ("execute", "a parameter of the endpoint, by Depends(db.session)"),
        ("commit", "session.commit in a block of db.transaction() as session"),
        ("begin", "write db.transaction()"),
        ("begin_nested", 'write db.transaction(nested="savepoint")'),
        ("connect", "write db.engine.connect()"),
        ("sessionmaker", "write db.transaction()"),
        ("get_db", "write Depends(db.session)"),
        ("close", "write db.dispose()"),
    ],
)
def test_a_name_of_something_else_is_answered(
    tmp_path: Path, kind: type[Any], name: str, remedy: str
) -> None:
    driver = "sqlite" if kind is Database else "sqlite+aiosqlite"
    db = kind(f"{driver}:///{tmp_path}/items.db")

    with pytest.raises(UsageError) as caught:
        getattr(db, name)

    assert remedy in str(caught.value)
    assert f"'{kind.__name__}' object has no attribute '{name}'" in str(caught.value)
    assert not hasattr(db, name)


def test_another_name_is_a_plain_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'colour'") as caught:
        _ = Database("sqlite://").colour  # type: ignore[attr-defined]

    assert not isinstance(caught.value, UsageError)


def test_an_error_of_the_source_is_not_hidden() -> None:
    db = Database(lambda: object().no_engine)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match="has no attribute 'no_engine'"):
        _ = db.engine


def test_a_database_that_is_not_initialised_has_a_plain_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute '_core'"):
        copy.copy(Database.__new__(Database)).name  # noqa: B018


# request.state


async def said_of(state: str, app: FastAPI) -> str:
    """What the error of a request says that looks *state* up."""

    @app.get("/")
    async def endpoint(request: Request) -> None:
        getattr(request.state, state)

    error = (await call(app, "GET", "/")).error
    assert isinstance(error, AttributeError)
    return str(error.__context__)


async def test_another_name_for_the_session_of_a_request(tmp_path: Path) -> None:
    message = await said_of("session", World(tmp_path).app)

    assert "session: the session of the request is request.state.default or" in message
    assert "request.state.db" in message


async def test_the_usual_name_where_there_is_another(tmp_path: Path) -> None:
    app = FastAPI()
    database = AsyncDatabase(f"sqlite+aiosqlite:///{tmp_path}/items.db", name="items")
    app.add_middleware(DBSessionMiddleware, db=database, state_attribute="session")

    assert "request.state.items or request.state.session" in await said_of("db", app)


async def test_a_name_that_means_no_session(tmp_path: Path) -> None:
    assert await said_of("user", World(tmp_path).app) == "'user'"
