"""A browser whose requests belong to the sandbox of a test, by header and by cookie."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from fastapi.responses import HTMLResponse, RedirectResponse
from playwright.sync_api import Browser, Page
from sqlalchemy import create_engine, make_url

from support.flavours import Flavour, Observer, kind_of
from support.models import add_item, create_tables, names
from unitwork import DBSessionMiddleware
from unitwork.testing import Sandbox, assert_rolled_back, sandbox

PAGE = """
<ul>{items}</ul>
<form method="post"><button id="add">add</button></form>
<form method="post" action="/fail"><button id="fail">fail</button></form>
"""
COUNT_BY_WEBSOCKET = """
() => new Promise((done) => {
  const socket = new WebSocket(`ws://${location.host}/count`);
  socket.onmessage = (event) => { socket.close(); done(event.data); };
})
"""


def build_app(flavour: Flavour) -> FastAPI:
    app = FastAPI()
    app.add_middleware(DBSessionMiddleware, db=flavour.db)

    @app.get("/", response_class=HTMLResponse)
    async def show() -> str:
        items = "".join(f"<li>{name}</li>" for name in await flavour.work(names))
        return PAGE.format(items=items)

    @app.post("/")
    async def add() -> RedirectResponse:
        await flavour.work(lambda session: add_item(session, "lamp"))
        return RedirectResponse("/", 303)

    @app.post("/fail", response_class=HTMLResponse)
    async def fail() -> HTMLResponse:
        def add_in_vain(session: Any) -> None:
            add_item(session, "lamp")
            raise LookupError

        try:
            await flavour.work(add_in_vain)
        except LookupError:
            return HTMLResponse("<p>sorry</p>", 409)
        raise AssertionError

    @app.websocket("/count")
    async def count(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(len(await flavour.work(names))))

    return app


@pytest.fixture(params=["psycopg", "asyncpg"])
def flavour(request: pytest.FixtureRequest, postgresql: str) -> Iterator[Flavour]:
    """As that of all tests, but no coroutine: Playwright leaves its loop running."""
    name: str = request.param
    url = make_url(postgresql).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    create_tables(engine, anew=True)
    own = url.set(drivername=f"postgresql+{name}").render_as_string(False)
    db = kind_of(name)(own, pool_size=5)
    yield Flavour(name, own, db)
    engine.dispose()


@pytest.fixture
def observer(flavour: Flavour) -> Observer:
    return Observer(flavour.url)


@pytest.fixture
def url(flavour: Flavour) -> Iterator[str]:
    """A live uvicorn in another thread, which has the context of no test."""
    server = uvicorn.Server(uvicorn.Config(build_app(flavour), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def by_header(browser: Browser, url: str, box: Sandbox) -> Page:
    page = browser.new_page(extra_http_headers=box.headers)
    page.goto(url)
    return page


def by_cookie(browser: Browser, url: str, box: Sandbox) -> Page:
    page = browser.new_page()
    for name, value in box.headers.items():
        page.context.add_cookies([{"name": name, "value": value, "url": url}])
    page.goto(url)
    return page


def shown(page: Page) -> list[str]:
    return page.locator("li").all_inner_texts()


def test_two_browsers_see_each_its_own_sandbox(
    flavour: Flavour, browser: Browser, url: str, observer: Observer
) -> None:
    with sandbox(flavour.db) as one, sandbox(flavour.db) as two:
        first, second = by_header(browser, url, one), by_cookie(browser, url, two)
        first.click("#add")
        assert (shown(first), shown(second)) == (["lamp"], [])
        second.reload()
        assert shown(second) == []
        assert names(two.sync_session) == []
        assert names(one.sync_session) == ["lamp"]
        first.close()
        second.close()

    assert observer.names() == []


def test_the_browser_sees_what_the_test_stores(
    flavour: Flavour, browser: Browser, url: str
) -> None:
    with sandbox(flavour.db) as box:
        page = by_cookie(browser, url, box)
        add_item(box.sync_session, "desk")
        box.sync_session.commit()
        page.reload()

        assert shown(page) == ["desk"]
        assert page.evaluate(COUNT_BY_WEBSOCKET) == "1"
        page.close()


def test_what_the_browser_gets_an_error_for_is_rolled_back(
    flavour: Flavour, browser: Browser, url: str
) -> None:
    with sandbox(flavour.db) as box:
        page = by_header(browser, url, box)
        with assert_rolled_back("LookupError", flavour.db):
            page.click("#fail")
            page.wait_for_selector("p")

        assert names(box.sync_session) == []
        page.close()


def test_a_browser_without_either_is_refused(
    flavour: Flavour, browser: Browser, url: str
) -> None:
    with sandbox(flavour.db):
        page = browser.new_page()
        response = page.goto(url)

        assert response is not None
        assert response.status == 500
        page.close()
