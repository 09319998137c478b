"""The application on its stage: a proxy before the database, and an outsider beside."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Self

from anyio import to_thread

from faults.lines import TrappedLines
from faults.tables import Outsider, plain_url
from faults.workload import application
from support.asgi import Reply, call
from support.flavours import FLAVOURS, Flavour, kind_of
from support.pool import eventually
from support.proxy import Proxy
from unitwork import DatabaseSettings, DBSessionMiddleware
from unitwork.testing import check_idle

SETTINGS = DatabaseSettings(
    end_timeout=0.5, commit_timeout=0.5, verify_timeout=3.0, verify_commit=True
)


class Stage:
    """`async with Stage(driver, url) as stage: await stage.request("/insert/key")`."""

    def __init__(
        self, driver: str, url: str, *, settings: DatabaseSettings = SETTINGS
    ) -> None:
        self.outsider = Outsider(url)
        self.proxy = Proxy(url)
        self._driver = driver
        self._settings = settings

    async def __aenter__(self) -> Self:
        await to_thread.run_sync(self.outsider.create)
        await self.proxy.__aenter__()
        url = plain_url(self.proxy.url, FLAVOURS[self._driver])
        self.db: Any = kind_of(self._driver)(
            url, settings=self._settings, pool_size=5, max_overflow=0
        )
        flavour = Flavour(self._driver, url, self.db)
        self.engine = flavour.sync_engine
        self.app = application(flavour)
        self.app.add_middleware(DBSessionMiddleware, db=self.db, answer_errors=False)
        lines = TrappedLines(self.engine, self.proxy, self.outsider.kill)
        self.meet, self.meet_newcomer = lines.meet, lines.meet_newcomer
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if (result := self.db.dispose()) is not None:
            await result
        await self.proxy.__aexit__(*exc_info)

    async def request(self, path: str) -> Reply:
        return await call(self.app, "POST", path)

    async def settle(self) -> list[str]:
        """Wait until nothing moves any more; gives what then still hangs: leaks.

        A connection that its client has left may still receive a COMMIT. So of all that
        came through the proxy the server has to have those that the proxy still has.
        """
        self.proxy.for_newcomers.clear()
        found: list[str] = []

        def look() -> bool:
            found[:] = self._leaks()
            return not found

        with suppress(TimeoutError):
            await eventually(look)
        return found

    def _leaks(self) -> list[str]:
        leaks = ["held by the proxy"] * int(self.proxy.holding)
        if self.outsider.ports() & self.proxy.used_ports != self.proxy.ports:
            leaks.append("connections without a client, or without a server")
        try:
            check_idle(self.db)
        except AssertionError as error:
            leaks.append(str(error))
        return leaks + ["busy on the server"] * len(self.outsider.busy())
