"""The real Litestar, wrapped by the middleware and with the middleware inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from litestar import Request, Response, post
from litestar.testing import TestClient
from sqlalchemy.exc import IntegrityError

from support.manual import Page
from unitwork import DBSessionMiddleware, transactional
from unitwork.testing import commit_faults

FORMS = pytest.mark.parametrize("name", ["app", "litestar_app"])


@FORMS
def test_commits_a_success_and_drops_a_failure(page: Page, name: str) -> None:
    main = page.run()

    with TestClient(getattr(main, name)) as client:
        created = client.post("/items/?name=lamp")
        refused = client.post("/items/?name=")
        names = client.get("/items/").json()

    assert (created.status_code, created.json(), refused.status_code) == (201, 1, 400)
    assert names == ["lamp"]


@FORMS
def test_is_disposed_of_at_shutdown(page: Page, name: str) -> None:
    main = page.run()
    with TestClient(getattr(main, name)) as client:
        client.get("/items/")
        assert main.db.pool_status().idle > 0

    assert main.db.pool_status().idle == 0


@FORMS
def test_a_commit_that_fails_is_no_success(page: Page, name: str) -> None:
    main = page.run()
    fault = IntegrityError("COMMIT", None, Exception("deferred"))

    with TestClient(getattr(main, name), raise_server_exceptions=False) as client:
        with commit_faults(main.db, fault):
            refused = client.post("/items/?name=lamp")
        names = client.get("/items/").json()

    assert (refused.status_code, names) == (500, [])


def test_options_are_set_by_the_decorator(page: Page) -> None:
    main = page.run()

    @post("/read-only")
    @transactional(read_only=True)
    async def read_only() -> None:
        main.db.current.add(main.Item(name="refused"))
        await main.db.current.flush()

    with TestClient(serve(main, read_only), raise_server_exceptions=False) as client:
        refused = client.post("/read-only")
        names = client.get("/items/").json()

    assert (refused.status_code, names) == (500, [])


def serve(main: Any, handler: Callable[..., Any]) -> Any:
    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
        return Response("sorry", status_code=200)

    application = main.Litestar(
        [handler, main.list_items],
        dependencies={"session": main.Provide(main.db.session)},
        exception_handlers={LookupError: answer},
        on_startup=[main.create_tables],
    )
    return DBSessionMiddleware(application, db=main.db)


def test_an_answered_exception_rolls_back(page: Page) -> None:
    main = page.run()

    @post("/fail")
    async def fail(request: Request[Any, Any, Any]) -> None:
        session = request.state.db
        assert session is main.db.current is await main.db.session(request)
        session.add(main.Item(name="lost"))
        await session.flush()
        raise LookupError

    with TestClient(serve(main, fail)) as client:
        answered = client.post("/fail")
        names = client.get("/items/").json()

    assert (answered.status_code, answered.text, names) == (200, "sorry", [])
