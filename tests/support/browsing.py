"""A real Chromium, and the shop of the pictures served to it by a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from threading import Thread
from typing import Any

import pytest
from httpx2 import AsyncClient
from playwright.sync_api import Browser, Page, sync_playwright

from pictures.chromium import ARGUMENTS, executable
from pictures.shop import Shop, opened
from support.proxy import Proxy
from support.servers import uvicorn_server


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; Playwright's own can't be downloaded everywhere."""
    path = executable()
    if path is None:
        missing = "no Chromium: apt install chromium, or set CHROMIUM_BIN"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class ServedShop:
    """The shop in the event loop of another thread, behind a proxy to its database."""

    def __init__(
        self, shop: Shop, client: AsyncClient, proxy: Proxy, port: int
    ) -> None:
        self.shop = shop
        self.proxy = proxy
        self.url = f"http://127.0.0.1:{port}/units/"
        self.is_allowed = True
        self._client = client
        self._loop = asyncio.get_running_loop()

    def start(self, method: str, path: str) -> Future[Any]:
        """Begin a request, and do not wait for its response."""
        request = self._client.request(method, path, timeout=60)
        return asyncio.run_coroutine_threadsafe(request, self._loop)

    def call(self, method: str, path: str) -> int:
        """Make a request; give the status of its response."""
        status: int = self.start(method, path).result(60).status_code
        return status

    def lose_next_commit(self) -> None:
        """Let the connection be lost when the next COMMIT is on its way."""
        lose = self.proxy.when
        self._loop.call_soon_threadsafe(lose, b"COMMIT", self.proxy.reset)

    def stop(self, ended: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(ended.set)


@contextmanager
def served(postgresql: str) -> Iterator[ServedShop]:
    """Serve the shop on its database, in a thread."""
    ready: Future[tuple[ServedShop, asyncio.Event]] = Future()
    thread = Thread(target=lambda: asyncio.run(_serve(postgresql, ready)))
    thread.start()
    shop, ended = ready.result(60)
    try:
        yield shop
    finally:
        shop.stop(ended)
        thread.join(60)


async def _serve(
    postgresql: str, ready: Future[tuple[ServedShop, asyncio.Event]]
) -> None:
    ended = asyncio.Event()
    try:
        async with _shop(postgresql) as served:
            ready.set_result((served, ended))
            await ended.wait()
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)
        raise


@asynccontextmanager
async def _shop(postgresql: str) -> AsyncIterator[ServedShop]:
    found: list[ServedShop] = []
    async with (
        Proxy(postgresql) as proxy,
        opened(proxy.url, lambda request: found[0].is_allowed) as (shop, client),
        uvicorn_server(shop.app) as port,
    ):
        found.append(ServedShop(shop, client, proxy, port))
        yield found[0]


def complaints_of(page: Page) -> list[str]:
    """What the page says on the console, and its errors: none is expected."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return said
