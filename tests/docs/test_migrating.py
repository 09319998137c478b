"""What migrating from `get_db()`, and from `commit()` to `flush()`, changes."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from sqlalchemy import delete, event, select
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from support.manual import Page
from unitwork import SessionEndedError

BEFORE_START = ["COMMIT", "start", "task"]
UNITWORK = {"order": BEFORE_START, "orphan": 409, "stored": ["ok"]}


def enforce(connection: Any, record: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


@pytest.fixture
def page(page: Page) -> Iterator[Page]:
    """With tables, and foreign keys that are enforced before the migration, too."""
    main = page.run(up_to="From `get_db()` with `yield`")
    event.listen(main.engine, "connect", enforce)
    main.Base.metadata.create_all(main.engine)
    main.engine.dispose()
    yield page
    main.engine.dispose()


def endpoints(main: Any, app: FastAPI, session: Any, order: list[str]) -> None:
    SessionDep = Annotated[Session, session]

    @app.exception_handler(IntegrityError)
    def conflict(request: Request, error: IntegrityError) -> JSONResponse:
        return JSONResponse({}, 409)

    @app.post("/ok")
    def ok(session: SessionDep, tasks: BackgroundTasks) -> None:
        session.add(main.Item(name="ok"))
        tasks.add_task(order.append, "task")

    @app.post("/raises")
    def raises(session: SessionDep) -> None:
        session.add(main.Item(name="raised"))
        session.flush()
        raise HTTPException(400)

    @app.post("/returns")
    def returns(session: SessionDep) -> JSONResponse:
        session.add(main.Item(name="returned"))
        session.flush()
        return JSONResponse({}, 409)

    @app.post("/orphan")
    def orphan(session: SessionDep) -> None:
        session.add(main.Child(item_id=99))


def behaviour(main: Any, app: FastAPI, session: Any, engine: Any) -> dict[str, Any]:
    """What *app* does with a success, two failures and a COMMIT that fails."""
    order: list[str] = []
    endpoints(main, app, session, order)
    event.listen(engine, "commit", lambda connection: order.append("COMMIT"))

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            order.extend(["start"] * (message["type"] == "http.response.start"))
            await send(message)

        await app(scope, receive, noted)

    client = TestClient(listening, raise_server_exceptions=False)
    client.post("/ok")
    found: dict[str, Any] = {"order": list(order)}
    client.post("/raises")
    client.post("/returns")
    found["orphan"] = client.post("/orphan").status_code
    with engine.begin() as connection:
        found["stored"] = list(connection.scalars(select(main.Item.name)))
        connection.execute(delete(main.Item))
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("scope", "order", "orphan"),
    [("request", ["start", "task", "COMMIT"], 200), ("function", BEFORE_START, 409)],
)
def test_get_db_commits_a_returned_409(
    page: Page, scope: Any, order: list[str], orphan: int
) -> None:
    main = page.run(up_to="With unitwork: `Depends(db.session)`")
    injected = Depends(main.get_db, scope=scope)
    found = behaviour(main, FastAPI(), injected, main.engine)

    assert found == {"order": order, "orphan": orphan, "stored": ["ok", "returned"]}
    page.run()


def test_a_dependency_of_unitwork_replaces_it(page: Page) -> None:
    main = page.run(up_to="From `commit()` to `flush()`")

    assert behaviour(main, main.app, Depends(main.get_db), main.db.engine) == UNITWORK
    page.run()


def test_a_background_task_can_not_use_the_session_of_the_request(page: Page) -> None:
    main = page.run()

    @main.app.post("/late")
    def late(
        tasks: BackgroundTasks, session: Annotated[Session, Depends(main.db.session)]
    ) -> None:
        tasks.add_task(session.scalar, select(1))

    with TestClient(main.app) as client, pytest.raises(SessionEndedError):
        client.post("/late")


def names(main: Any) -> list[str]:
    with TestClient(main.app) as client:
        found: list[str] = client.get("/names").json()
    return found


def test_the_session_of_an_override_is_not_committed(page: Page) -> None:
    main = page.run()

    def override() -> Iterator[Session]:
        with main.SessionLocal() as session:
            yield session

    @main.app.post("/items")
    def create(session: Annotated[Session, Depends(main.get_db)]) -> None:
        main.create_item(session, "lamp")

    main.app.dependency_overrides[main.get_db] = override
    with TestClient(main.app) as client:
        assert client.post("/items").status_code == 200

    assert names(main) == []


def test_what_a_test_has_only_flushed_is_missed(page: Page) -> None:
    main = page.run()
    assert names(main) == []
    with main.SessionLocal() as session:
        main.create_item(session, "lamp")
        assert names(main) == []
        session.commit()
        assert names(main) == ["lamp"]

    main.arrange("chair", "table")
    assert names(main) == ["lamp", "chair", "table"]


def test_what_a_test_has_only_flushed_has_locks(page: Page) -> None:
    main = page.run()
    impatient = main.Database("sqlite:///items.db", connect_args={"timeout": 0})
    with main.SessionLocal() as session:
        main.create_item(session, "lamp")
        with pytest.raises(OperationalError, match="database is locked"):
            impatient.run(main.create_item, "chair")
    impatient.dispose()


def test_a_test_sees_old_values_until_they_expire(page: Page) -> None:
    main = page.run()
    main.arrange("lamp")
    with main.Session(main.db.engine, expire_on_commit=False) as session:
        item = session.get_one(main.Item, 1)
        session.commit()
        with main.db.transaction() as other:
            other.get_one(main.Item, 1).name = "desk lamp"

        assert session.get_one(main.Item, 1).name == "lamp"
        session.expire_all()
        assert item.name == "desk lamp"
    main.db.dispose()


def test_an_overridden_session_is_shared(page: Page) -> None:
    main = page.run()
    with main.SessionLocal() as session, main.db.override(session):
        main.create_item(session, "lamp")
        assert names(main) == ["lamp"]


def test_a_script_stores_nothing_without_a_unit(page: Page) -> None:
    main = page.run()
    with main.SessionLocal() as session:
        main.create_item(session, "lost")
    main.import_items()

    assert names(main) == ["imported"]
