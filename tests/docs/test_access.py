"""All ways to the session lead to the same one."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from support.manual import Page
from unitwork import DBSessionMiddleware, SessionEndedError


def test_has_one_session_for_each_request(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client:
        paths = "/dependency", "/current", "/state"
        assert [client.get(path).json() for path in paths] == [True, 0, True]
    with TestClient(main.sync_app) as client:
        assert client.get("/").json() is True
    with TestClient(main.article_app) as client:
        assert client.get("/maker").json() == 44
        client.portal.call(main.SessionLocal.kw["bind"].dispose)


def test_serves_applications_without_fastapi(page: Page) -> None:
    main = page.run()
    starlette_app = Starlette(
        routes=[Route("/", main.homepage)],
        middleware=[Middleware(DBSessionMiddleware, db=main.db)],
    )

    with TestClient(starlette_app) as client:
        assert client.get("/").json() == 42
        client.portal.call(main.db.dispose)
    assert TestClient(main.plain_app).get("/").text == "43"


def test_shows_the_error_outside_a_unit(
    page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    page.run()

    assert " ".join(capsys.readouterr().out.split()) in " ".join(page.text.split())


def test_differs_from_sqlalchemy_in_three_settings(page: Page) -> None:
    main = page.run()

    with main.sync_db.transaction() as session:
        assert session.expire_on_commit is False
        assert isinstance(session, Session)
        assert type(session) is not Session
    with pytest.raises(SessionEndedError):
        session.connection()
    main.sync_db.dispose()


async def test_differs_in_the_same_way_for_async_sessions(page: Page) -> None:
    main = page.run()

    async with main.db.transaction() as session:
        assert session.sync_session.expire_on_commit is False
        assert isinstance(session, AsyncSession)
        assert type(session) is not AsyncSession
    with pytest.raises(SessionEndedError):
        await session.connection()
    await main.db.dispose()
