"""Pictures of the inspector, of a real run: what a browser shows of it.

They differ from run to run, as times do.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from httpx2 import AsyncClient
from playwright.async_api import Browser, Page, async_playwright

from .chromium import ARGUMENTS, executable
from .png import shrink
from .shop import Shop, browse, crowd, opened

__all__ = ["SCREENSHOTS", "take"]

WIDTH = 1000
SCREENSHOTS = ["inspector-timeline", "inspector-unit", "inspector-pool"]


async def take(folder: Path) -> None:
    """Write the pictures into *folder*."""
    async with (
        opened() as (shop, client),
        _served(shop.app) as port,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(
            executable_path=executable(), args=ARGUMENTS
        )
        root = f"http://127.0.0.1:{port}/units/"
        pictures = await _take_all(browser, root, shop, client)
        await browser.close()
    for name, picture in zip(SCREENSHOTS, pictures, strict=True):
        (folder / f"{name}.png").write_bytes(shrink(picture))


async def _take_all(
    browser: Browser, root: str, shop: Shop, client: AsyncClient
) -> list[bytes]:
    for _ in range(3):  # the first requests connect and prepare
        await client.post("/orders")
        await client.get("/orders/1/summary")
        await client.get("/export")
    await browse(shop, client)
    timeline = await _page(browser, root + "timeline", "light")
    link = timeline.locator("tr.is-committed a.name", has_text="POST /orders").first
    unit = await _page(browser, await link.evaluate("a => a.href"), "dark")
    found = [
        await _down_to(timeline, "tbody tr:nth-child(8)"),
        await _down_to(unit, ".facts div:nth-child(7)"),
    ]
    async with crowd(client, 30):
        pool = await _page(browser, root, "light")
        await pool.get_by_text("blocked by a lock").first.wait_for()
        return [*found, await _down_to(pool, "tbody tr:nth-child(5)")]


async def _page(browser: Browser, url: str, scheme: Any) -> Page:
    size: Any = {"width": WIDTH, "height": 1600}
    page = await browser.new_page(viewport=size, color_scheme=scheme)
    await page.goto(url)
    await page.wait_for_selector("html[data-shown]")
    return page


async def _down_to(page: Page, last: str) -> bytes:
    """The page down to the *last* element, without the room for a scroll bar."""
    element = page.locator(last).first
    bottom = await element.evaluate("each => each.getBoundingClientRect().bottom")
    width = await page.evaluate("document.body.clientWidth")
    clip: Any = {"x": 0, "y": 0, "width": width, "height": bottom + 12}
    return await page.screenshot(clip=clip)


@asynccontextmanager
async def _served(app: Any) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await task
